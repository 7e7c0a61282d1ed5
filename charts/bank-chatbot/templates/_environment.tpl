{{/* One key of the Secret that the operator made: (list $ "NAME" optional) */}}
{{- define "bank.secretEnv" -}}
{{- $root := index . 0 -}}
- name: {{ index . 1 }}
  valueFrom:
    secretKeyRef:
      name: {{ $root.Values.secrets.existing }}
      key: {{ index . 1 }}
{{- end }}

{{/* Keys of a bucket, where the pod's identity is not enough: (list $ "PREFIX_OF_THE_SECRET_S_KEYS") */}}
{{- define "bank.awsEnv" -}}
{{- $root := index . 0 -}}
{{- $prefix := index . 1 -}}
{{- range $name := list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ $root.Values.secrets.existing }}
      key: {{ printf "%s%s" $prefix $name }}
{{- end }}
{{- end }}

{{- define "bank.databaseEnv" -}}
{{- if .Values.postgres.enabled }}
{{ include "bank.secretEnv" (list . "POSTGRES_PASSWORD") }}
- name: DATABASE_URL
  value: postgresql+asyncpg://chatbot:$(POSTGRES_PASSWORD)@{{ include "bank.fullname" . }}-postgres:5432/chatbot
{{- else }}
{{ include "bank.secretEnv" (list . "DATABASE_URL") }}
{{- end }}
{{- end }}

{{/* Where Qdrant is, and the key for "read" or "write": (list $ "read") */}}
{{- define "bank.qdrantEnv" -}}
{{- $root := index . 0 -}}
- name: QDRANT_URL
  value: {{ $root.Values.qdrant.enabled | ternary (printf "http://%s-qdrant:6333" (include "bank.fullname" $root)) $root.Values.qdrant.external.url }}
- name: QDRANT_API_KEY
  valueFrom:
    secretKeyRef:
      name: {{ $root.Values.secrets.existing }}
      key: {{ include "bank.qdrantKey" . }}
{{- with $root.Values.qdrant.tls }}
{{- if .secret }}
- {name: QDRANT__CA_FILE, value: /etc/qdrant-tls/ca.crt}
{{- if .clientCertificate }}
- {name: QDRANT__CERT_FILE, value: /etc/qdrant-tls/tls.crt}
- {name: QDRANT__KEY_FILE, value: /etc/qdrant-tls/tls.key}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "bank.qdrantKey" -}}
{{- $root := index . 0 -}}
{{- and (eq (index . 1) "read") $root.Values.qdrant.readKeyInSecret | ternary "QDRANT_READ_API_KEY" "QDRANT_API_KEY" -}}
{{- end }}

{{- define "bank.redisEnv" -}}
{{- if .Values.redis.enabled }}
{{ include "bank.secretEnv" (list . "REDIS_PASSWORD") }}
- name: REDIS_URL
  value: redis://:$(REDIS_PASSWORD)@{{ include "bank.fullname" . }}-redis:6379/0
{{- else }}
{{ include "bank.secretEnv" (list . "REDIS_URL") }}
{{- end }}
{{- end }}

{{- define "bank.identityEnv" -}}
- {name: AUTH__ISSUER, value: {{ .Values.auth.issuer | quote }}}
- {name: AUTH__AUDIENCE, value: {{ .Values.auth.audience | quote }}}
- {name: AUTH__JWKS_URL, value: {{ .Values.auth.jwksUrl | quote }}}
{{- end }}

{{- define "bank.commonEnv" -}}
- {name: WEIGHTS_DIR, value: /models}
- {name: DATA_DIR, value: /tmp/data}
- {name: HOME, value: /tmp}
- {name: HF_HUB_OFFLINE, value: "1"}
- {name: LOG_LEVEL, value: {{ .Values.logLevel }}}
- {name: LOG_FORMAT, value: json}
{{- with .Values.traces.otlpEndpoint }}
- {name: TRACES__OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- end }}

{{/* What the operator adds, in the order of names: a map. */}}
{{- define "bank.settingsEnv" -}}
{{- range $name := keys . | sortAlpha }}
- name: {{ $name }}
  value: {{ get $ $name | toString | quote }}
{{- end }}
{{- end }}
