{{/* TLS of the release's own servers (tls.enabled): a Secret a part (chatbot, ingest, llm, qdrant, redis, postgres) with
tls.crt, tls.key and ca.crt, made by cert-manager or by the operator: (list $ "redis") */}}
{{- define "bank.tlsSecret" -}}
{{- $root := index . 0 -}}
{{- get $root.Values.tls.secrets (index . 1) | default (printf "%s-%s-tls" (include "bank.fullname" $root) (index . 1)) -}}
{{- end }}

{{- define "bank.tlsMount" -}}
{{- if .Values.tls.enabled }}
- {name: tls, mountPath: /etc/tls, readOnly: true}
{{- end }}
{{- end }}

{{- define "bank.tlsVolume" -}}
{{- if (index . 0).Values.tls.enabled }}
- name: tls
  secret:
    secretName: {{ include "bank.tlsSecret" . | toYaml }}
    # PostgreSQL takes a key that its group may read, and that nobody else may.
    defaultMode: 0440
{{- end }}
{{- end }}

{{/* The authority alone, for who only asks: (list $ "qdrant") */}}
{{- define "bank.caOnlyVolume" -}}
{{- if (index . 0).Values.tls.enabled }}
- name: tls
  secret:
    secretName: {{ include "bank.tlsSecret" . | toYaml }}
    items: [{key: ca.crt, path: ca.crt}]
{{- end }}
{{- end }}

{{/* What a service shows, and looks at every 2 s. */}}
{{- define "bank.serverTlsEnv" -}}
{{- if .Values.tls.enabled }}
- {name: SERVER_TLS__CERT_FILE, value: /etc/tls/tls.crt}
- {name: SERVER_TLS__KEY_FILE, value: /etc/tls/tls.key}
{{- end }}
{{- end }}

{{- define "bank.http" -}}
{{- .Values.tls.enabled | ternary "https" "http" -}}
{{- end }}

{{/* A probe over HTTP, or HTTPS: (list $ "/livez") */}}
{{- define "bank.httpGet" -}}
{path: {{ index . 1 }}, port: http{{ if (index . 0).Values.tls.enabled }}, scheme: HTTPS{{ end }}}
{{- end }}
