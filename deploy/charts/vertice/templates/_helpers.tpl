{{/* Labels of every object. */}}
{{- define "vertice.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: vertice
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/* Labels that select the pods of the backup operator. */}}
{{- define "vertice.backup.selector" -}}
app.kubernetes.io/name: vertice-operator-backup
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Metadata that all objects of the backup operator share; fixed names: definitions and rights are cluster-wide, so is the operator. */}}
{{- define "vertice.backup.metadata" -}}
name: vertice-operator-backup
labels:
  {{- include "vertice.backup.selector" . | nindent 2 }}
  {{- include "vertice.labels" . | nindent 2 }}
{{- end }}
