{{/* Pods of this release by component: (list $ (list "chatbot" …)) */}}
{{- define "bank.isOneOf" -}}
{{- $root := index . 0 -}}
- {key: app.kubernetes.io/name, operator: In, values: [{{ $root.Chart.Name }}]}
- {key: app.kubernetes.io/instance, operator: In, values: [{{ $root.Release.Name | toYaml }}]}
- {key: app.kubernetes.io/component, operator: In, values: [{{ join ", " (index . 1) }}]}
{{- end }}

{{- define "bank.fromComponents" -}}
- from:
    - podSelector:
        matchExpressions:
          {{- include "bank.isOneOf" . | nindent 10 }}
  ports:
    - {port: {{ index . 2 }}, protocol: TCP}
{{- end }}

{{- define "bank.toComponents" -}}
- to:
    - podSelector:
        matchExpressions:
          {{- include "bank.isOneOf" . | nindent 10 }}
  ports:
    - {port: {{ index . 2 }}, protocol: TCP}
{{- end }}

{{/* Peers that the operator names: (list peers port) */}}
{{- define "bank.from" -}}
- from:
    {{- toYaml (index . 0) | nindent 4 }}
  ports:
    - {port: {{ index . 1 }}, protocol: TCP}
{{- end }}

{{- define "bank.toDns" -}}
# names
- to:
    {{- toYaml .Values.networkPolicy.dns | nindent 4 }}
  ports:
    - {port: {{ .Values.networkPolicy.dnsPort }}, protocol: UDP}
    - {port: {{ .Values.networkPolicy.dnsPort }}, protocol: TCP}
{{- end }}

{{/* What lies outside the release, where it is used at all: (list "what" $target) */}}
{{- define "bank.toOutside" -}}
{{- $target := index . 1 -}}
{{- if $target.to -}}
# {{ index . 0 }}
- to:
    {{- toYaml $target.to | nindent 4 }}
  ports:
    - {port: {{ $target.port }}, protocol: TCP}
{{- end -}}
{{- end }}

{{/* A store of this release, or one elsewhere: (list $ "redis" port) */}}
{{- define "bank.toStore" -}}
{{- $root := index . 0 -}}
{{- $store := index . 1 -}}
{{- if (index $root.Values $store).enabled -}}
{{ include "bank.toComponents" (list $root (list $store) (index . 2)) }}
{{- else -}}
{{ include "bank.toOutside" (list $store (index $root.Values.networkPolicy.egress $store)) }}
{{- end -}}
{{- end }}

{{- define "bank.toStores" -}}
# history, answer logs, token ledger, jobs
{{ include "bank.toStore" (list . "redis" 6379) }}
# passages
{{ include "bank.toStore" (list . "qdrant" 6333) }}
# catalogue, audit, withdrawals
{{ include "bank.toStore" (list . "postgres" 5432) }}
{{ include "bank.toOutside" (list "the identity provider's keys" .Values.networkPolicy.egress.identityProvider) }}
{{ include "bank.toOutside" (list "traces" .Values.networkPolicy.egress.traces) }}
{{- end }}
