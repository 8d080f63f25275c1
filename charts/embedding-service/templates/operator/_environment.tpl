{{/* The operator's settings, of which each has a default in the operator too. */}}
{{- define "operator.environment" -}}
- name: EMBEDDING_OPERATOR_NAMESPACES
  value: {{ join "," .Values.watchNamespaces | quote }}
- name: EMBEDDING_OPERATOR_WORKER_IMAGE
  value: {{ include "pods.image" (list . "worker") | quote }}
- name: EMBEDDING_OPERATOR_WORKER_IMAGE_PULL_POLICY
  value: {{ .Values.image.pullPolicy | quote }}
- name: EMBEDDING_OPERATOR_RESYNC_SECONDS
  value: {{ .Values.operator.resyncSeconds | quote }}
- name: EMBEDDING_OPERATOR_LOG_LEVEL
  value: {{ .Values.operator.logLevel | quote }}
- name: EMBEDDING_OPERATOR_LOG_FORMAT
  value: {{ .Values.operator.logFormat | quote }}
- name: EMBEDDING_OPERATOR_LAG_PROVIDER
  value: {{ .Values.autoscaling.lagProvider | quote }}
- name: EMBEDDING_OPERATOR_LAG_METRIC
  value: {{ .Values.autoscaling.lagMetric | quote }}
- name: EMBEDDING_OPERATOR_LAG_NAMESPACE_LABEL
  value: {{ .Values.autoscaling.lagNamespaceLabel | quote }}
- name: EMBEDDING_OPERATOR_LAG_NAME_LABEL
  value: {{ .Values.autoscaling.lagNameLabel | quote }}
- name: EMBEDDING_OPERATOR_HTTP_PORT
  value: "8080"
{{- end }}
