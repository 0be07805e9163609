// Command idle-operator is a backup operator on controller-runtime that does for a quiet VerticeBackup what `vertice
// operator backup` does: the same watches with the same selectors and predicates, metadata alone where that one holds
// metadata alone, as many workers, the same leader election, no limit to its rate of requests. `cargo xtask bench idle`
// compares what the two cost. It makes no backups.
//
// It is tuned as its library allows: one cache for both controllers, managedFields dropped before caching, objects of the
// cache used without copies, built-in kinds by protobuf, initial lists streamed (client-go's default).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"time"
	_ "time/tzdata" // as in the other operator: an image without files has no zones

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/selection"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

type settings struct {
	agentImage, metricsAddr, probeAddr string
	leaseNamespace, leaseName          string
}

func main() {
	var s settings
	flag.StringVar(&s.agentImage, "agent-image", "", "image of vertice-agent")
	flag.StringVar(&s.metricsAddr, "metrics-addr", ":8080", "where /metrics is served")
	flag.StringVar(&s.probeAddr, "probe-addr", ":8081", "where /healthz and /readyz are served")
	flag.StringVar(&s.leaseNamespace, "lease-namespace", "default", "namespace of the Lease")
	flag.StringVar(&s.leaseName, "lease-name", "idle-operator", "name of the Lease")
	version := flag.Bool("version", false, "print the version of controller-runtime and end")
	flag.Parse()
	if *version {
		printVersion()
		return
	}
	ctrl.SetLogger(zap.New())
	if err := run(ctrl.SetupSignalHandler(), s); err != nil {
		log.Fatal(err)
	}
}

func printVersion() {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		log.Fatal("built without information on modules")
	}
	for _, module := range info.Deps {
		if module.Path == "sigs.k8s.io/controller-runtime" {
			fmt.Println("controller-runtime", module.Version)
		}
	}
}

func run(ctx context.Context, s settings) error {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), addToScheme(scheme)); err != nil {
		return err
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	config.QPS = -1
	caches, err := cacheOptions()
	if err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                        scheme,
		Cache:                         caches,
		Metrics:                       server.Options{BindAddress: s.metricsAddr},
		HealthProbeBindAddress:        s.probeAddr,
		LeaderElection:                true,
		LeaderElectionID:              s.leaseName,
		LeaderElectionNamespace:       s.leaseNamespace,
		LeaderElectionReleaseOnCancel: true,
		GracefulShutdownTimeout:       ptr.To(20 * time.Second),
	})
	if err != nil {
		return err
	}
	if err := errors.Join(
		newBackupReconciler(mgr, s.agentImage).setup(mgr),
		(&restoreReconciler{mgr.GetClient()}).setup(mgr),
		mgr.AddHealthzCheck("ping", func(*http.Request) error { return nil }),
		mgr.AddReadyzCheck("caches", cachesFilled(mgr.GetCache())),
	); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

// cacheOptions narrows the caches. Jobs and pods of both controllers share one cache: the label that both kinds of runs
// have selects them.
func cacheOptions() (cache.Options, error) {
	ofBackups, err := labels.NewRequirement(backupLabel, selection.Exists, nil)
	if err != nil {
		return cache.Options{}, err
	}
	ofRuns, err := labels.NewRequirement(ownerUIDLabel, selection.Exists, nil)
	if err != nil {
		return cache.Options{}, err
	}
	schedules, runs := labels.NewSelector().Add(*ofBackups), labels.NewSelector().Add(*ofRuns)
	return cache.Options{
		DefaultTransform:             cache.TransformStripManagedFields(),
		DefaultUnsafeDisableDeepCopy: ptr.To(true),
		ByObject: map[client.Object]cache.ByObject{
			&batchv1.CronJob{}: {Label: schedules},
			&batchv1.Job{}:     {Label: runs},
			&corev1.Pod{}:      {Label: runs},
		},
	}, nil
}

func cachesFilled(caches cache.Cache) func(*http.Request) error {
	return func(request *http.Request) error {
		ctx, cancel := context.WithTimeout(request.Context(), 50*time.Millisecond)
		defer cancel()
		if !caches.WaitForCacheSync(ctx) {
			return errors.New("waiting for the first lists")
		}
		return nil
	}
}

// intentChanged lets everything pass but a change of the status alone.
var intentChanged = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	before, after := e.ObjectOld, e.ObjectNew
	if after.GetGeneration() == 0 {
		return before.GetResourceVersion() != after.GetResourceVersion()
	}
	return before.GetUID() != after.GetUID() ||
		before.GetGeneration() != after.GetGeneration() ||
		before.GetDeletionTimestamp().IsZero() != after.GetDeletionTimestamp().IsZero() ||
		!maps.Equal(before.GetLabels(), after.GetLabels()) ||
		!maps.Equal(before.GetAnnotations(), after.GetAnnotations()) ||
		!slices.Equal(before.GetFinalizers(), after.GetFinalizers())
}}

// ownerByLabel finds the object of a Job's or pod's namespace that its label names.
func ownerByLabel(label string) handler.MapFunc {
	return func(_ context.Context, object client.Object) []reconcile.Request {
		name, ok := object.GetLabels()[label]
		if !ok {
			return nil
		}
		key := client.ObjectKey{Namespace: object.GetNamespace(), Name: name}
		return []reconcile.Request{{NamespacedName: key}}
	}
}
