package main

import (
	"context"
	"errors"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// restoreReconciler watches what the VerticeRestore controller of crates/vertice-backup watches. A restore that ended is
// left alone, as there; one that has not is not quiet, and is refused.
type restoreReconciler struct {
	client.Client
}

func (r *restoreReconciler) setup(mgr ctrl.Manager) error {
	waiting := handler.EnqueueRequestsFromMapFunc(r.waiting)
	byLabel := handler.EnqueueRequestsFromMapFunc(ownerByLabel(restoreLabel))
	return ctrl.NewControllerManagedBy(mgr).
		Named("restore").
		For(&VerticeRestore{}, builder.WithPredicates(intentChanged)).
		Watches(&batchv1.Job{}, byLabel).
		Watches(&corev1.Pod{}, byLabel).
		Watches(&VerticeBackup{}, waiting).
		WatchesMetadata(&corev1.Service{}, waiting, builder.WithPredicates(intentChanged)).
		WatchesMetadata(&appsv1.StatefulSet{}, waiting, builder.WithPredicates(intentChanged)).
		WatchesMetadata(&appsv1.Deployment{}, waiting, builder.WithPredicates(intentChanged)).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers}).
		Complete(r)
}

func (r *restoreReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var restore VerticeRestore
	if err := r.Get(ctx, req.NamespacedName, &restore); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if restore.DeletionTimestamp != nil || hasEnded(&restore) {
		return reconcile.Result{}, nil
	}
	return reconcile.Result{}, reconcile.TerminalError(errors.New("it has not ended: only quiet objects are measured"))
}

func hasEnded(restore *VerticeRestore) bool {
	return restore.Status.Phase == "Succeeded" || restore.Status.Phase == "Failed"
}

// waiting finds the VerticeRestores of an object's namespace that have not started.
func (r *restoreReconciler) waiting(ctx context.Context, object client.Object) []reconcile.Request {
	var restores VerticeRestoreList
	if err := r.List(ctx, &restores, client.InNamespace(object.GetNamespace())); err != nil {
		return nil
	}
	var found []reconcile.Request
	for i := range restores.Items {
		if restore := &restores.Items[i]; !hasEnded(restore) && restore.Status.JobUID == "" {
			found = append(found, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(restore)})
		}
	}
	return found
}
