{{/* One key of the Secret that the operator made: (list $ "NAME" optional) */}}
{{- define "bank.secretEnv" -}}
{{- $root := index . 0 -}}
- name: {{ index . 1 }}
  valueFrom:
    secretKeyRef:
      name: {{ $root.Values.secrets.existing | toYaml }}
      key: {{ index . 1 }}
{{- end }}

{{/* Keys of a bucket, where the pod's identity is not enough: (list $ "PREFIX_OF_THE_SECRET_S_KEYS") */}}
{{- define "bank.awsEnv" -}}
{{- $root := index . 0 -}}
{{- $prefix := index . 1 -}}
{{- range $name := list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- name: {{ $name | toYaml }}
  valueFrom:
    secretKeyRef:
      name: {{ $root.Values.secrets.existing | toYaml }}
      key: {{ printf "%s%s" $prefix $name }}
{{- end }}
{{- end }}

{{/* Where the database is, and who asks where it is elsewhere: (list $ "chatbot") */}}
{{- define "bank.databaseEnv" -}}
{{- $service := index . 1 }}
{{- with index . 0 }}
{{- if .Values.postgres.enabled }}
{{- $own := .Values.accounts.separate }}
{{- $password := $own | ternary (printf "POSTGRES_%s_PASSWORD" (upper $service)) "POSTGRES_PASSWORD" }}
{{ include "bank.secretEnv" (list . $password) }}
- name: DATABASE_URL
  value: postgresql+asyncpg://{{ $own | ternary (printf "bank_%s" $service) "chatbot" }}:$({{ $password }})@{{ include "bank.fullname" . }}-postgres:5432/chatbot{{ if .Values.tls.enabled }}?ssl=verify-full{{ end }}
{{- if .Values.tls.enabled }}
- {name: DATABASE_TLS__CA_FILE, value: /etc/tls/ca.crt}
{{- end }}
{{- else }}
{{ include "bank.secretEnvAs" (list . "DATABASE_URL" (.Values.accounts.separate | ternary (printf "%s_DATABASE_URL" (upper $service)) "DATABASE_URL")) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where Qdrant is, and the key for "read" or "write": (list $ "read") */}}
{{- define "bank.qdrantEnv" -}}
{{- $root := index . 0 -}}
- name: QDRANT_URL
  value: {{ $root.Values.qdrant.enabled | ternary (printf "%s://%s-qdrant:6333" (include "bank.http" $root) (include "bank.fullname" $root)) $root.Values.qdrant.external.url }}
- name: QDRANT_API_KEY
  valueFrom:
    secretKeyRef:
      name: {{ $root.Values.secrets.existing | toYaml }}
      key: {{ include "bank.qdrantKey" . }}
{{- if and $root.Values.qdrant.enabled $root.Values.tls.enabled }}
- {name: QDRANT__CA_FILE, value: /etc/tls/ca.crt}
{{- end }}
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

{{/* Where the embedder, or the reranker, is: (list $ "embedder") */}}
{{- define "bank.retrievalEnv" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $prefix := upper $name -}}
{{- $url := include "bank.retrievalUrl" . }}
{{- $pool := get (include "bank.pools" $root | fromYaml) (include "bank.retrievalPool" .) }}
{{- with index $root.Values $name }}
{{- if $url }}
- {name: {{ $prefix }}__URL, value: {{ $url | quote }}}
{{- $model := .model }}
{{- if $pool }}{{ $model = (include "bank.profile" (list $root $pool) | fromYaml).servedName }}{{ end }}
{{- with $model }}
- {name: {{ $prefix }}__MODEL, value: {{ . | quote }}}
{{- end }}
{{- if eq $name "embedder" }}
{{- with include "bank.embedderTokenizer" $root }}
- {name: EMBEDDER__TOKENIZER, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- if .keyInSecret }}
{{ include "bank.secretEnv" (list $root (printf "%s__API_KEY" $prefix)) }}
{{- end }}
{{- if and $pool $root.Values.tls.enabled }}
- {name: {{ $prefix }}__CA_FILE, value: /etc/tls/ca.crt}
{{- else if .tls.secret }}
- {name: {{ $prefix }}__CA_FILE, value: /etc/{{ $name }}-tls/ca.crt}
{{- if .tls.clientCertificate }}
- {name: {{ $prefix }}__CERT_FILE, value: /etc/{{ $name }}-tls/tls.crt}
- {name: {{ $prefix }}__KEY_FILE, value: /etc/{{ $name }}-tls/tls.key}
{{- end }}
{{- end }}
{{- else if eq $name "reranker" }}
{{- else if .revision }}
- {name: EMBEDDER__MODEL, value: {{ .model | quote }}}
- {name: EMBEDDER__REVISION, value: {{ .revision | quote }}}
{{- else if .folder }}
- {name: EMBEDDER__FOLDER, value: {{ include "bank.embedderFolder" $root | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{/* Where Redis is, and who asks: (list $ "chatbot") */}}
{{- define "bank.redisEnv" -}}
{{- $root := index . 0 -}}
{{- $service := index . 1 -}}
{{- $own := $root.Values.accounts.separate -}}
{{- if $root.Values.redis.enabled }}
{{- $password := $own | ternary (printf "REDIS_%s_PASSWORD" (upper $service)) "REDIS_PASSWORD" }}
{{ include "bank.secretEnv" (list $root $password) }}
- name: REDIS_URL
  value: {{ $root.Values.tls.enabled | ternary "rediss" "redis" }}://{{ $own | ternary $service "" }}:$({{ $password }})@{{ include "bank.fullname" $root }}-redis:6379/0
{{- if $root.Values.tls.enabled }}
- {name: REDIS_TLS__CA_FILE, value: /etc/tls/ca.crt}
{{- end }}
{{- else }}
{{ include "bank.secretEnvAs" (list $root "REDIS_URL" ($own | ternary (printf "%s_REDIS_URL" (upper $service)) "REDIS_URL")) }}
{{- end }}
{{- end }}

{{/* The tokens that an API takes: of root and "chatbot" or "ingest", each of which may have an audience of its own. */}}
{{- define "bank.identityEnv" -}}
{{- $auth := (index . 0).Values.auth }}{{- $api := index . 1 }}
- {name: AUTH__ISSUER, value: {{ $auth.issuer | quote }}}
- {name: AUTH__AUDIENCE, value: {{ include "bank.audience" (list $auth $api) | quote }}}
- {name: AUTH__JWKS_URL, value: {{ $auth.jwksUrl | quote }}}
{{- range $key := list "subjectClaim" "subjectPrefix" "tenantClaim" "tenant" "rolesClaim" "groupsClaim" "roleMap" "roles" }}
{{- with index $auth $key }}
- {name: AUTH__{{ $key | snakecase | upper }}, value: {{ kindIs "string" . | ternary . (toJson .) | quote }}}
{{- end }}
{{- end }}
{{- with $auth.issuers }}
{{- $issuers := list }}
{{- range $issuer := . }}
{{- $one := dict "audience" (include "bank.audience" (list $issuer $api)) }}
{{- range $key, $value := omit $issuer "audience" "ingestAudience" }}
{{- if or $value (eq $key "subjectPrefix") }}{{ $_ := set $one (snakecase $key) $value }}{{ end }}
{{- end }}
{{- $issuers = append $issuers $one }}
{{- end }}
- {name: AUTH__ISSUERS, value: {{ $issuers | toJson | quote }}}
{{- end }}
{{- end }}

{{/* Where people sign in on a page: of root and "chatbot" or "ingest". */}}
{{- define "bank.signInEnv" -}}
{{- $root := index . 0 }}{{- $api := index . 1 }}
{{- with index $root.Values.signIn $api }}
{{- if .issuer }}
- {name: OIDC__ISSUER, value: {{ .issuer | quote }}}
- {name: OIDC__CLIENT_ID, value: {{ .clientId | quote }}}
- {name: OIDC__SCOPES, value: {{ .scopes | quote }}}
{{- range $name := list "OIDC__CLIENT_SECRET" "OIDC__SESSION_KEY" }}
- name: {{ $name | toYaml }}
  valueFrom:
    secretKeyRef:
      name: {{ $root.Values.secrets.existing | toYaml }}
      key: {{ upper $api }}_{{ replace "__" "_" $name }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "bank.audience" -}}
{{- $issuer := index . 0 }}
{{- and (eq (index . 1) "ingest") $issuer.ingestAudience | default $issuer.audience }}
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

{{/* What the operator adds, in the order of names: a map. A number of a values file is a float, which only JSON writes as it
stood there: as text it is 2.592e+06. */}}
{{- define "bank.settingsEnv" -}}
{{- range $name := keys . | sortAlpha }}
- name: {{ $name | toYaml }}
  value: {{ get $ $name | kindIs "string" | ternary (get $ $name) (get $ $name | toJson) | quote }}
{{- end }}
{{- end }}

{{/* Refuses a container's environment in which a name stands twice: Helm 4 and Flux end at it, and with Helm 3 the program
loses both when one is taken out. (list "whose values" $env) */}}
{{- define "bank.namedOnce" -}}
{{- $names := dict }}
{{- range index . 1 }}
{{- if hasKey $names .name }}{{ fail (printf "set-twice: %s would be set twice: leave it out of %s (the chart sets it from a value of its own, or it stands in both)" .name (index $ 0)) }}{{ end }}
{{- $_ := set $names .name true }}
{{- end }}
{{- end }}

{{/* A Deployment's text, of which each variable is named once: (list "whose values" $text) */}}
{{- define "bank.deployment" -}}
{{- range (index . 1 | fromYaml).spec.template.spec.containers }}
{{- include "bank.namedOnce" (list (index $ 0) .env) }}
{{- end }}
{{- index . 1 }}
{{- end }}

{{/* The bank's authorities, for Python, botocore, curl and pip: all of `bank.caEnv`, `bank.caMount` and `bank.caVolume`. */}}
{{- define "bank.caEnv" -}}
{{- if .Values.caBundle.configMap }}
{{- range $name := list "SSL_CERT_FILE" "REQUESTS_CA_BUNDLE" "AWS_CA_BUNDLE" "CURL_CA_BUNDLE" "PIP_CERT" }}
- {name: {{ $name }}, value: /etc/bank-ca/{{ $.Values.caBundle.key }}}
{{- end }}
{{- end }}
{{- end }}

{{- define "bank.caMount" -}}
{{- if .Values.caBundle.configMap }}
- {name: bank-ca, mountPath: /etc/bank-ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "bank.caVolume" -}}
{{- with .Values.caBundle.configMap }}
- name: bank-ca
  configMap:
    name: {{ . | toYaml }}
{{- end }}
{{- end }}

{{/* A list that the operator adds to a tier's pods: (list $ "chatbot" "env") */}}
{{- define "bank.extra" -}}
{{- $root := index . 0 -}}
{{- with get (index $root.Values.extra (index . 1)) (index . 2) }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* KEDA's way in where Prometheus wants one; indented as a trigger's keys. */}}
{{- define "bank.prometheusAuthentication" -}}
{{- with .Values.scaling.authentication }}
{{- if .name }}
authenticationRef: {name: {{ .name | toYaml }}, kind: {{ .kind }}}
{{- end }}
{{- end }}
{{- end }}
