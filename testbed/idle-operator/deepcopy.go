package main

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func clone[T any](value *T) *T {
	if value == nil {
		return nil
	}
	copied := *value
	return &copied
}

func (in *VerticeBackup) DeepCopyObject() runtime.Object { return in.DeepCopy() }

func (in *VerticeBackup) DeepCopy() *VerticeBackup {
	out := *in
	in.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	out.Spec.Target = *in.Spec.Target.DeepCopy()
	if options := in.Spec.Options; options != nil {
		out.Spec.Options = &BackupOptions{Compression: clone(options.Compression)}
		if options.Compression != nil {
			out.Spec.Options.Compression.Level = clone(options.Compression.Level)
		}
	}
	out.Status = *in.Status.DeepCopy()
	return &out
}

func (in *Target) DeepCopy() *Target {
	out := *in
	out.Port = clone(in.Port)
	out.Databases = slices.Clone(in.Databases)
	return &out
}

func (in *VerticeBackupStatus) DeepCopy() *VerticeBackupStatus {
	out := *in
	out.Conditions = slices.Clone(in.Conditions)
	out.LastBackup = in.LastBackup.DeepCopy()
	out.LastSuccess = in.LastSuccess.DeepCopy()
	out.NextBackup = clone(in.NextBackup)
	out.History = slices.Clone(in.History)
	for i := range out.History {
		out.History[i].SizeBytes = clone(in.History[i].SizeBytes)
	}
	if in.Totals != nil {
		out.Totals = clone(in.Totals)
		out.Totals.DurationBuckets = slices.Clone(in.Totals.DurationBuckets)
	}
	return &out
}

func (in *BackupRun) DeepCopy() *BackupRun {
	out := clone(in)
	if out != nil {
		out.SizeBytes = clone(in.SizeBytes)
	}
	return out
}

func (in *VerticeBackupList) DeepCopyObject() runtime.Object {
	out := VerticeBackupList{TypeMeta: in.TypeMeta, ListMeta: copiedListMeta(in.ListMeta)}
	for i := range in.Items {
		out.Items = append(out.Items, *in.Items[i].DeepCopy())
	}
	return &out
}

func (in *VerticeRestore) DeepCopyObject() runtime.Object { return in.DeepCopy() }

func (in *VerticeRestore) DeepCopy() *VerticeRestore {
	out := *in
	in.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	out.Spec.Source.Storage = clone(in.Spec.Source.Storage)
	if in.Spec.Target != nil {
		out.Spec.Target = in.Spec.Target.DeepCopy()
	}
	return &out
}

func (in *VerticeRestoreList) DeepCopyObject() runtime.Object {
	out := VerticeRestoreList{TypeMeta: in.TypeMeta, ListMeta: copiedListMeta(in.ListMeta)}
	for i := range in.Items {
		out.Items = append(out.Items, *in.Items[i].DeepCopy())
	}
	return &out
}

func copiedListMeta(in metav1.ListMeta) metav1.ListMeta {
	in.RemainingItemCount = clone(in.RemainingItemCount)
	return in
}
