{{/* An account of its own for each service at the stores (accounts.separate), in place of their owners'. */}}

{{/* A key of the Secret under the name that a program knows: (list $ "REDIS_URL" "CHATBOT_REDIS_URL") */}}
{{- define "bank.secretEnvAs" -}}
- name: {{ index . 1 }}
  valueFrom:
    secretKeyRef:
      name: {{ (index . 0).Values.secrets.existing | toYaml }}
      key: {{ index . 2 }}
{{- end }}

{{/* Redis' directives for both users, a line each: quoted for a shell that knows their passwords. */}}
{{- define "bank.redisUsers" -}}
{{- range $name, $may := .Files.Get "files/redis-acl.yaml" | fromYaml }}
--user {{ $name }} on ">$REDIS_{{ upper $name }}_PASSWORD" resetkeys resetchannels -@all
{{- range $may.keys }} '~{{ . }}'{{ end }}
{{- range $may.channels }} '&{{ . }}'{{ end }}
{{- range $may.commands }} '+{{ . }}'{{ end }}
{{- end }}
{{- end }}
