{{/* Every name of the chart's objects, in this one place. */}}

{{/*
What all names begin with: a DNS label of at most 40 characters. The longest suffix keeps a DNS label's 63, and the
test's pipeline keeps the 45 of a pipeline's name.
*/}}
{{- define "names.base" -}}
{{- $derived := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- .Values.fullnameOverride | default $derived | replace "." "-" | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* The operator's Deployment, ServiceAccount, and its Role in each namespace. */}}
{{- define "names.operator" -}}
{{ include "names.base" . }}-operator
{{- end }}

{{/* The metrics Service and its ServiceMonitor. */}}
{{- define "names.metrics" -}}
{{ include "names.base" . }}-operator-metrics
{{- end }}

{{/* What a ClusterRole's name begins with: other namespaces may have a release of this name too. */}}
{{- define "names.cluster" -}}
{{ .Release.Namespace }}:{{ include "names.base" . }}
{{- end }}

{{/* The operator's ClusterRole and ClusterRoleBinding. */}}
{{- define "names.clusterOperator" -}}
{{ include "names.cluster" . }}-operator
{{- end }}

{{/* The aggregated ClusterRoles. */}}
{{- define "names.view" -}}
{{ include "names.cluster" . }}-view
{{- end }}
{{- define "names.edit" -}}
{{ include "names.cluster" . }}-edit
{{- end }}

{{/* The pipeline and the pod of `helm test`. One name: `helm test --logs` asks for a pod by the name of each hook. */}}
{{- define "names.test" -}}
{{ include "names.base" . }}-test
{{- end }}

{{/* Where the test runs: the release's namespace, or else one that the operator watches. */}}
{{- define "names.testNamespace" -}}
{{- $watched := .Values.watchNamespaces -}}
{{- if or (empty $watched) (has .Release.Namespace $watched) -}}{{ .Release.Namespace }}{{- else -}}{{ first $watched }}{{- end -}}
{{- end }}
