{{/* What the chart's pods have in common. */}}

{{/* A full image reference. Call with (list . "operator") or (list . "worker"). */}}
{{- define "pods.image" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $image := $root.Values.image -}}
{{- $prefix := ternary "" (printf "%s/" (trimSuffix "/" $image.repository)) (empty $image.repository) -}}
{{- $derived := printf "%sembedding-%s:%s" $prefix $component ($image.tag | default $root.Chart.AppVersion) -}}
{{- (index $root.Values $component).image | default $derived -}}
{{- end }}

{{/* Security contexts that a namespace of Pod Security `restricted` admits. The user is the images' own. */}}
{{- define "pods.securityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "pods.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Where the operator's pod, and the test's with it, may run. */}}
{{- define "pods.placement" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.operator.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.operator.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.operator.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.operator.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}
