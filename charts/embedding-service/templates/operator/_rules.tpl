{{/* What the operator may do, cluster-wide or in a namespace. Tests show that each verb is used. */}}
{{- define "operator.rules" -}}
- apiGroups: [embeddings.dev]
  resources: [embeddingpipelines]
  verbs: [get, list, watch, patch]
- apiGroups: [embeddings.dev]
  resources: [embeddingpipelines/status]
  verbs: [patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [list, watch, create, patch]
- apiGroups: [apps]
  resources: [deployments/scale]
  verbs: [patch]
- apiGroups: [""]
  resources: [configmaps, services]
  verbs: [list, watch, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [list, watch, create, patch]
# Deleted where autoscaling is switched off; with the pipeline it goes by its owner reference.
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [list, watch, create, patch, delete]
{{- if eq .Values.autoscaling.lagProvider "keda" }}
# In place of an autoscaler, with metric Lag.
- apiGroups: [keda.sh]
  resources: [scaledobjects, triggerauthentications]
  verbs: [list, watch, create, patch, delete]
{{- end }}
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# By name, those that a pipeline names: never listed, never watched.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end }}
