package main

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// The resources of crates/vertice-api, as Go has them. Only what is held in memory and compared matters here: the API
// server validates.
var groupVersion = schema.GroupVersion{Group: "vertice.io", Version: "v1alpha1"}

func addToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(groupVersion,
		&VerticeBackup{}, &VerticeBackupList{}, &VerticeRestore{}, &VerticeRestoreList{})
	metav1.AddToGroupVersion(scheme, groupVersion)
	return nil
}

type VerticeBackup struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              VerticeBackupSpec   `json:"spec"`
	Status            VerticeBackupStatus `json:"status,omitempty"`
}

type VerticeBackupList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []VerticeBackup `json:"items"`
}

type VerticeBackupSpec struct {
	Target           Target         `json:"target"`
	Schedule         string         `json:"schedule"`
	TimeZone         string         `json:"timeZone,omitempty"`
	Suspend          bool           `json:"suspend,omitempty"`
	StartingDeadline string         `json:"startingDeadline,omitempty"`
	Timeout          string         `json:"timeout,omitempty"`
	Storage          Storage        `json:"storage"`
	Options          *BackupOptions `json:"options,omitempty"`
}

type Target struct {
	Type        string   `json:"type"`
	Name        string   `json:"name"`
	Kind        string   `json:"kind,omitempty"`
	Credentials string   `json:"credentials"`
	Host        string   `json:"host,omitempty"`
	Port        *int32   `json:"port,omitempty"`
	Databases   []string `json:"databases,omitempty"`
	Image       string   `json:"image,omitempty"`
}

type Storage struct {
	Type        string `json:"type"`
	Bucket      string `json:"bucket"`
	Prefix      string `json:"prefix,omitempty"`
	Endpoint    string `json:"endpoint,omitempty"`
	Region      string `json:"region,omitempty"`
	Credentials string `json:"credentials"`
}

type BackupOptions struct {
	Compression *Compression `json:"compression,omitempty"`
}

type Compression struct {
	Type  string `json:"type,omitempty"`
	Level *int32 `json:"level,omitempty"`
}

type VerticeBackupStatus struct {
	Phase              string             `json:"phase,omitempty"`
	ObservedGeneration int64              `json:"observedGeneration,omitempty"`
	Conditions         []metav1.Condition `json:"conditions,omitempty"`
	LastBackup         *BackupRun         `json:"lastBackup,omitempty"`
	LastSuccess        *BackupRun         `json:"lastSuccess,omitempty"`
	NextBackup         *metav1.Time       `json:"nextBackup,omitempty"`
	History            []BackupRun        `json:"history,omitempty"`
	Totals             *BackupTotals      `json:"totals,omitempty"`
	Location           string             `json:"location,omitempty"`
}

type BackupRun struct {
	Timestamp metav1.Time `json:"timestamp"`
	Status    string      `json:"status"`
	Duration  string      `json:"duration,omitempty"`
	Size      string      `json:"size,omitempty"`
	SizeBytes *int64      `json:"sizeBytes,omitempty"`
	BackupID  string      `json:"backupId,omitempty"`
	Job       string      `json:"job"`
	JobUID    string      `json:"jobUid"`
	Manual    bool        `json:"manual,omitempty"`
	Reason    string      `json:"reason,omitempty"`
	Message   string      `json:"message,omitempty"`
}

type BackupTotals struct {
	Runs            int64   `json:"runs"`
	Succeeded       int64   `json:"succeeded"`
	Failed          int64   `json:"failed"`
	DurationSeconds float64 `json:"durationSeconds"`
	DurationBuckets []int64 `json:"durationBuckets,omitempty"`
}

type VerticeRestore struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              VerticeRestoreSpec   `json:"spec"`
	Status            VerticeRestoreStatus `json:"status,omitempty"`
}

type VerticeRestoreList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []VerticeRestore `json:"items"`
}

type VerticeRestoreSpec struct {
	Source RestoreSource `json:"source"`
	Target *Target       `json:"target,omitempty"`
}

type RestoreSource struct {
	BackupName string   `json:"backupName,omitempty"`
	Storage    *Storage `json:"storage,omitempty"`
	BackupID   string   `json:"backupId,omitempty"`
}

type VerticeRestoreStatus struct {
	Phase  string `json:"phase,omitempty"`
	JobUID string `json:"jobUid,omitempty"`
}
