package main

import (
	"encoding/json"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

const (
	backupLabel   = "vertice.io/backup"
	restoreLabel  = "vertice.io/restore"
	ownerUIDLabel = "vertice.io/owner-uid"

	defaultTimeout = 24 * time.Hour
	defaultRegion  = "us-east-1"
	defaultPort    = 5432
	agentDir       = "/var/run/vertice/bin"
)

// task is what crates/vertice-catalog writes into a run's environment: the same fields in the same order, so that the
// text is the same.
type task struct {
	Do               string       `json:"do"`
	Owner            taskOwner    `json:"owner"`
	Trigger          string       `json:"trigger"`
	Server           taskServer   `json:"server"`
	Databases        []string     `json:"databases,omitempty"`
	Storage          taskLocation `json:"storage"`
	Compression      string       `json:"compression"`
	CompressionLevel *int32       `json:"compressionLevel,omitempty"`
}

type taskOwner struct {
	Cluster   string `json:"cluster"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

type taskServer struct {
	Engine string `json:"engine"`
	Host   string `json:"host"`
	Port   int32  `json:"port"`
	Secret string `json:"secret"`
}

type taskLocation struct {
	Type     string `json:"type"`
	Bucket   string `json:"bucket"`
	Prefix   string `json:"prefix"`
	Endpoint string `json:"endpoint,omitempty"`
	Region   string `json:"region"`
	Secret   string `json:"secret"`
}

func location(backup *VerticeBackup) taskLocation {
	storage := &backup.Spec.Storage
	found := taskLocation{
		Type: storage.Type, Bucket: storage.Bucket, Prefix: storage.Prefix,
		Endpoint: storage.Endpoint, Region: storage.Region, Secret: storage.Credentials,
	}
	if found.Prefix == "" {
		found.Prefix = backup.Namespace + "/" + backup.Name
	}
	if found.Region == "" {
		found.Region = defaultRegion
	}
	return found
}

func taskOf(backup *VerticeBackup, cluster string) task {
	target := &backup.Spec.Target
	made := task{
		Do:      "backup",
		Owner:   taskOwner{Cluster: cluster, Namespace: backup.Namespace, Name: backup.Name},
		Trigger: "scheduled",
		Server: taskServer{
			Engine: target.Type, Host: target.Host, Port: ptr.Deref(target.Port, defaultPort), Secret: target.Credentials,
		},
		Databases:   target.Databases,
		Storage:     location(backup),
		Compression: "gzip",
	}
	if options := backup.Spec.Options; options != nil && options.Compression != nil {
		made.CompressionLevel = options.Compression.Level
		if options.Compression.Type != "" {
			made.Compression = options.Compression.Type
		}
	}
	return made
}

// seconds reads a duration of the spec, rounded up.
func seconds(field, text string, otherwise time.Duration) (int64, error) {
	duration := otherwise
	if text != "" {
		parsed, err := time.ParseDuration(text)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", field, err)
		}
		duration = parsed
	}
	return max(1, int64((duration+time.Second-1)/time.Second)), nil
}

func labelsOf(component string, backup *VerticeBackup) map[string]string {
	return map[string]string{
		"app.kubernetes.io/managed-by": "vertice",
		"app.kubernetes.io/component":  component,
		backupLabel:                    backup.Name,
		ownerUIDLabel:                  string(backup.UID),
	}
}

// wantedCronJob is the object that crates/vertice-backup makes.
func wantedCronJob(backup *VerticeBackup, cluster, zone, agentImage string) (*batchv1.CronJob, error) {
	text, err := json.Marshal(taskOf(backup, cluster))
	if err != nil {
		return nil, fmt.Errorf("the task cannot be written: %w", err)
	}
	timeout, err := seconds("spec.timeout", backup.Spec.Timeout, defaultTimeout)
	if err != nil {
		return nil, err
	}
	var deadline *int64
	if backup.Spec.StartingDeadline != "" {
		parsed, err := seconds("spec.startingDeadline", backup.Spec.StartingDeadline, 0)
		if err != nil {
			return nil, err
		}
		deadline = &parsed
	}
	labels := labelsOf("backup", backup)
	return &batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{
			Name:      cronJobName(backup.Name),
			Namespace: backup.Namespace,
			Labels:    labelsOf("schedule", backup),
			OwnerReferences: []metav1.OwnerReference{
				*metav1.NewControllerRef(backup, groupVersion.WithKind("VerticeBackup")),
			},
		},
		Spec: batchv1.CronJobSpec{
			Schedule:                   backup.Spec.Schedule,
			TimeZone:                   ptr.To(zone),
			Suspend:                    ptr.To(backup.Spec.Suspend),
			StartingDeadlineSeconds:    deadline,
			ConcurrencyPolicy:          batchv1.ForbidConcurrent,
			SuccessfulJobsHistoryLimit: ptr.To[int32](10),
			FailedJobsHistoryLimit:     ptr.To[int32](10),
			JobTemplate: batchv1.JobTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: batchv1.JobSpec{
					ActiveDeadlineSeconds: ptr.To(timeout),
					BackoffLimit:          ptr.To[int32](2),
					PodFailurePolicy:      failurePolicy(),
					Template:              podTemplate(backup, labels, string(text), agentImage),
				},
			},
		},
	}, nil
}

func cronJobName(backup string) string { return backup + "-backup" }

func failurePolicy() *batchv1.PodFailurePolicy {
	return &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{
		{
			Action: batchv1.PodFailurePolicyActionIgnore,
			OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{
				{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue},
			},
		},
		{
			Action: batchv1.PodFailurePolicyActionFailJob,
			OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
				ContainerName: ptr.To("agent"), Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{1},
			},
		},
	}}
}

func podTemplate(backup *VerticeBackup, labels map[string]string, task, agentImage string) corev1.PodTemplateSpec {
	const user = 65532
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken:  ptr.To(false),
			EnableServiceLinks:            ptr.To(false),
			RestartPolicy:                 corev1.RestartPolicyNever,
			TerminationGracePeriodSeconds: ptr.To[int64](30),
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To[int64](user), RunAsGroup: ptr.To[int64](user),
				FSGroup:        ptr.To[int64](user),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			InitContainers: []corev1.Container{{
				Name: "install-agent", Image: agentImage, Args: []string{"install", agentDir},
				Resources:       requests("10m", "16Mi"),
				SecurityContext: containerSecurity(),
				VolumeMounts:    []corev1.VolumeMount{{Name: "agent-bin", MountPath: agentDir}},
			}},
			Containers: []corev1.Container{agent(backup.Spec.Target.Image, task)},
			Volumes: []corev1.Volume{
				emptyDir("agent-bin", corev1.StorageMediumDefault, "64Mi"),
				emptyDir("work", corev1.StorageMediumMemory, "8Mi"),
				secret("target-credentials", backup.Spec.Target.Credentials),
				secret("storage-credentials", backup.Spec.Storage.Credentials),
			},
		},
	}
}

func agent(image, task string) corev1.Container {
	return corev1.Container{
		Name: "agent", Image: image, Command: []string{agentDir + "/vertice-agent", "run"},
		Env: []corev1.EnvVar{
			{Name: "VERTICE_TASK", Value: task},
			ofPod("VERTICE_RUN", "metadata.labels['batch.kubernetes.io/job-name']"),
			ofPod("VERTICE_NAMESPACE", "metadata.namespace"),
		},
		Resources:                requests("100m", "128Mi"),
		SecurityContext:          containerSecurity(),
		TerminationMessagePath:   "/dev/termination-log",
		TerminationMessagePolicy: corev1.TerminationMessageReadFile,
		VolumeMounts: []corev1.VolumeMount{
			{Name: "agent-bin", MountPath: agentDir, ReadOnly: true},
			{Name: "work", MountPath: "/var/run/vertice/work"},
			{Name: "target-credentials", MountPath: "/var/run/vertice/target", ReadOnly: true},
			{Name: "storage-credentials", MountPath: "/var/run/vertice/storage", ReadOnly: true},
		},
	}
}

func ofPod(name, field string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: field},
	}}
}

func requests(cpu, memory string) corev1.ResourceRequirements {
	return corev1.ResourceRequirements{Requests: corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory),
	}}
}

func containerSecurity() *corev1.SecurityContext {
	return &corev1.SecurityContext{
		AllowPrivilegeEscalation: ptr.To(false),
		ReadOnlyRootFilesystem:   ptr.To(true),
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
}

func emptyDir(name string, medium corev1.StorageMedium, limit string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{
		Medium: medium, SizeLimit: ptr.To(resource.MustParse(limit)),
	}}}
}

func secret(name, of string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
		SecretName: of, DefaultMode: ptr.To[int32](0o440), Optional: ptr.To(true),
	}}}
}
