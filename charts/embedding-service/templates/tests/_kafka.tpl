{{/* A pipeline's spec.kafka as the test's pod needs it. Call each with .Values.test.kafka. */}}

{{- define "tests.kafkaEnvironment" -}}
{{- $tls := .tls | default dict -}}
- name: EMBEDDING_KAFKA__BOOTSTRAP_SERVERS
  value: {{ join "," .bootstrapServers | quote }}
{{- if $tls.enabled }}
- name: EMBEDDING_KAFKA__TLS
  value: "true"
{{- end }}
{{- if $tls.caSecret }}
- name: EMBEDDING_KAFKA__TLS_CA_FILE
  value: /etc/kafka/ca/ca.crt
{{- end }}
{{- if $tls.clientCertificateSecret }}
- name: EMBEDDING_KAFKA__TLS_CERTIFICATE_FILE
  value: /etc/kafka/client/tls.crt
- name: EMBEDDING_KAFKA__TLS_KEY_FILE
  value: /etc/kafka/client/tls.key
{{- end }}
{{- with .sasl }}
{{- $secret := .credentialsSecret }}
- name: EMBEDDING_KAFKA__SASL_MECHANISM
  value: {{ .mechanism | quote }}
- name: EMBEDDING_KAFKA__SASL_USERNAME
  valueFrom:
    secretKeyRef: {name: {{ $secret.name | quote }}, key: {{ $secret.usernameKey | default "username" | quote }}}
- name: EMBEDDING_KAFKA__SASL_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ $secret.name | quote }}, key: {{ $secret.passwordKey | default "password" | quote }}}
{{- end }}
{{- end }}

{{- define "tests.kafkaMounts" -}}
{{- $tls := .tls | default dict -}}
- {name: tmp, mountPath: /tmp}
{{- if $tls.caSecret }}
- {name: kafka-ca, mountPath: /etc/kafka/ca, readOnly: true}
{{- end }}
{{- if $tls.clientCertificateSecret }}
- {name: kafka-client, mountPath: /etc/kafka/client, readOnly: true}
{{- end }}
{{- end }}

{{- define "tests.kafkaVolumes" -}}
{{- $tls := .tls | default dict -}}
- name: tmp
  emptyDir: {sizeLimit: 16Mi}
{{- with $tls.caSecret }}
- name: kafka-ca
  secret:
    secretName: {{ .name | quote }}
    defaultMode: 0440
    items:
      - {key: {{ .key | default "ca.crt" | quote }}, path: ca.crt}
{{- end }}
{{- with $tls.clientCertificateSecret }}
- name: kafka-client
  secret:
    secretName: {{ .name | quote }}
    defaultMode: 0440
{{- end }}
{{- end }}
