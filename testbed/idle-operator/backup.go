package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/robfig/cron/v3"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

const (
	workers = 4
	resync  = 30 * time.Minute
)

// backupReconciler does for a quiet VerticeBackup what crates/vertice-backup does: it reads the object, its CronJob,
// its Jobs and their pods from the cache, computes the CronJob and the status that there should be, and writes what
// differs. Runs are not judged and names of Services not resolved: such objects are not quiet, and are refused.
type backupReconciler struct {
	client.Client
	live       client.Reader
	agentImage string
	cluster    func(context.Context) (string, error)
}

func newBackupReconciler(mgr ctrl.Manager, agentImage string) *backupReconciler {
	r := &backupReconciler{Client: mgr.GetClient(), live: mgr.GetAPIReader(), agentImage: agentImage}
	r.cluster = onceThatSucceeds(func(ctx context.Context) (string, error) {
		var namespace metav1.PartialObjectMetadata
		namespace.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
		err := r.live.Get(ctx, types.NamespacedName{Name: "kube-system"}, &namespace)
		return string(namespace.UID), err
	})
	return r
}

func (r *backupReconciler) setup(mgr ctrl.Manager) error {
	targeting := handler.EnqueueRequestsFromMapFunc(r.targeting)
	byLabel := handler.EnqueueRequestsFromMapFunc(ownerByLabel(backupLabel))
	return ctrl.NewControllerManagedBy(mgr).
		Named("backup").
		For(&VerticeBackup{}, builder.WithPredicates(intentChanged)).
		Owns(&batchv1.CronJob{}).
		Watches(&batchv1.Job{}, byLabel).
		Watches(&corev1.Pod{}, byLabel).
		WatchesMetadata(&corev1.Service{}, targeting, builder.WithPredicates(intentChanged)).
		WatchesMetadata(&appsv1.StatefulSet{}, targeting, builder.WithPredicates(intentChanged)).
		WatchesMetadata(&appsv1.Deployment{}, targeting, builder.WithPredicates(intentChanged)).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers}).
		Complete(r)
}

func (r *backupReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	// It shares maps and slices with the cache: nothing in it is changed.
	backup := &VerticeBackup{}
	if err := r.Get(ctx, req.NamespacedName, backup); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if backup.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	if backup.Spec.Target.Host == "" {
		return reconcile.Result{}, reconcile.TerminalError(errors.New("only targets with a host are measured"))
	}
	cluster, err := r.cluster(ctx)
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("cannot read the cluster's identity: %w", err)
	}
	if err := r.hasNoRuns(ctx, backup); err != nil {
		return reconcile.Result{}, err
	}
	now := time.Now()
	zone := backup.Spec.TimeZone
	if zone == "" {
		zone = "Etc/UTC"
	}
	schedule, err := cron.ParseStandard("TZ=" + zone + " " + backup.Spec.Schedule)
	if err != nil {
		return reconcile.Result{}, reconcile.TerminalError(fmt.Errorf("spec.schedule: %w", err))
	}
	wanted, err := wantedCronJob(backup, cluster, zone, r.agentImage)
	if err != nil {
		return reconcile.Result{}, reconcile.TerminalError(err)
	}
	if err := r.applyCronJob(ctx, backup, wanted); err != nil {
		return reconcile.Result{}, err
	}
	next := schedule.Next(now)
	if err := r.applyStatus(ctx, backup, zone, next); err != nil {
		return reconcile.Result{}, err
	}
	again := resync - time.Duration(rand.Float64()*0.1*float64(resync))
	return reconcile.Result{RequeueAfter: min(again, next.Sub(now))}, nil
}

// hasNoRuns reads Jobs and pods as the run's judge would, and finds none.
func (r *backupReconciler) hasNoRuns(ctx context.Context, backup *VerticeBackup) error {
	owned := []client.ListOption{
		client.InNamespace(backup.Namespace), client.MatchingLabels{ownerUIDLabel: string(backup.UID)},
	}
	var jobs batchv1.JobList
	if err := r.List(ctx, &jobs, owned...); err != nil {
		return err
	}
	var pods corev1.PodList
	if err := r.List(ctx, &pods, owned...); err != nil {
		return err
	}
	if len(jobs.Items)+len(pods.Items) > 0 || len(backup.Status.History) > 0 {
		return reconcile.TerminalError(errors.New("it has runs: only quiet objects are measured"))
	}
	return nil
}

func (r *backupReconciler) applyCronJob(ctx context.Context, backup *VerticeBackup, wanted *batchv1.CronJob) error {
	var live batchv1.CronJob
	err := r.Get(ctx, client.ObjectKeyFromObject(wanted), &live)
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	if err != nil {
		return r.Create(ctx, wanted)
	}
	if !metav1.IsControlledBy(&live, backup) {
		return fmt.Errorf("CronJob %s/%s is not ours", live.Namespace, live.Name)
	}
	if equality.Semantic.DeepDerivative(wanted.Labels, live.Labels) &&
		equality.Semantic.DeepDerivative(wanted.Spec, live.Spec) {
		return nil
	}
	changed := live.DeepCopy()
	changed.Labels, changed.Spec = wanted.Labels, wanted.Spec
	return r.Patch(ctx, changed, client.MergeFrom(&live))
}

func (r *backupReconciler) applyStatus(ctx context.Context, backup *VerticeBackup, zone string, next time.Time) error {
	changed := backup.DeepCopy()
	status := &changed.Status
	status.Phase = "Scheduled"
	status.ObservedGeneration = backup.Generation
	ready := metav1.Condition{
		Type: "Ready", Status: metav1.ConditionTrue, Reason: "Scheduled", ObservedGeneration: backup.Generation,
		Message: fmt.Sprintf("runs at %q in time zone %s", backup.Spec.Schedule, zone),
	}
	status.NextBackup = &metav1.Time{Time: next}
	if backup.Spec.Suspend {
		status.Phase, status.NextBackup = "Suspended", nil
		ready.Reason = "Suspended"
		ready.Message = "spec.suspend is true: no scheduled run starts, manual ones work"
	}
	meta.SetStatusCondition(&status.Conditions, ready)
	meta.SetStatusCondition(&status.Conditions, metav1.Condition{
		Type: "BackupHealthy", Status: metav1.ConditionUnknown, Reason: "NoBackupYet",
		ObservedGeneration: backup.Generation, Message: "no run has ended yet",
	})
	if status.Totals == nil {
		status.Totals = &BackupTotals{}
	}
	at := location(backup)
	status.Location = at.Type + "://" + at.Bucket + "/" + at.Prefix
	if equality.Semantic.DeepEqual(changed.Status, backup.Status) {
		return nil
	}
	return r.Status().Patch(ctx, changed, client.MergeFrom(backup))
}

// targeting finds the VerticeBackups of an object's namespace that name no host.
func (r *backupReconciler) targeting(ctx context.Context, object client.Object) []reconcile.Request {
	var backups VerticeBackupList
	if err := r.List(ctx, &backups, client.InNamespace(object.GetNamespace())); err != nil {
		return nil
	}
	var found []reconcile.Request
	for i := range backups.Items {
		if backups.Items[i].Spec.Target.Host == "" {
			found = append(found, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&backups.Items[i])})
		}
	}
	return found
}

// onceThatSucceeds keeps the first answer that is no error.
func onceThatSucceeds(ask func(context.Context) (string, error)) func(context.Context) (string, error) {
	var lock sync.Mutex
	var answer string
	return func(ctx context.Context) (string, error) {
		lock.Lock()
		defer lock.Unlock()
		if answer != "" {
			return answer, nil
		}
		found, err := ask(ctx)
		if err == nil {
			answer = found
		}
		return found, err
	}
}
