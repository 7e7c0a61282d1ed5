{{- define "bank.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name -}}
{{- end -}}
{{- end }}

{{/* Labels that select: (list $ "component") */}}
{{- define "bank.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* All labels of an object: (list $ "component") */}}
{{- define "bank.labels" -}}
{{- $root := index . 0 -}}
{{ include "bank.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* An image's address, by digest where there is one: (list $ "chatbot"). Refused here, so that images are asked for a
digest only by what uses them. */}}
{{- define "bank.image" -}}
{{- $root := index . 0 -}}
{{- $image := index $root.Values.images (index . 1) -}}
{{- $registry := $root.Values.images.registry | default $image.registry -}}
{{- $tag := $image.tag | default $root.Chart.AppVersion -}}
{{- if $image.digest -}}
{{- printf "%s/%s:%s@%s" $registry $image.repository $tag $image.digest -}}
{{- else -}}
{{- if $root.Values.images.requireDigest }}
{{- fail (printf "image-without-digest: images.%s has no digest, and images.requireDigest is set" (index . 1)) }}
{{- end -}}
{{- printf "%s/%s:%s" $registry $image.repository $tag -}}
{{- end -}}
{{- end }}

{{/* Every pool with what it leaves to llm.poolDefaults. */}}
{{- define "bank.pools" -}}
{{- $pools := dict -}}
{{- range $name, $pool := .Values.llm.pools -}}
{{- $_ := set $pools $name (mergeOverwrite (deepCopy $.Values.llm.poolDefaults) $pool) -}}
{{- end -}}
{{- toYaml $pools -}}
{{- end }}

{{- define "bank.pool" -}}
{{- printf "%s-llm-%s" (include "bank.fullname" (index . 0)) (index . 1) -}}
{{- end }}

{{/* What the image knows of a pool's profile: (list $ $pool) gives YAML. */}}
{{- define "bank.profile" -}}
{{- $root := index . 0 -}}
{{- $profiles := $root.Files.Get "files/profiles.yaml" | fromYaml -}}
{{- index $profiles (index . 1).profile | toYaml -}}
{{- end }}

{{/* Which of the images serves a pool: (list $ $pool) */}}
{{- define "bank.poolImage" -}}
{{- eq (include "bank.profile" . | fromYaml).device "cuda" | ternary "llmServer" "llmServerCpu" -}}
{{- end }}

{{/* The folder of a pool's weights; a hub model's carries its commit, so a new revision never meets old files. */}}
{{- define "bank.weightsFolder" -}}
{{- $profile := include "bank.profile" . | fromYaml -}}
{{- if $profile.hub -}}
{{- printf "/models/%s/%s" (index . 1).profile $profile.hub.revision -}}
{{- else -}}
{{- printf "/models/%s" $profile.weights -}}
{{- end -}}
{{- end }}

{{/* Seconds from SIGTERM's notice to SIGKILL. */}}
{{- define "bank.chatbotGrace" -}}
{{- $own := add .Values.chatbot.preStopSeconds .Values.chatbot.longestAnswerSeconds 30 -}}
{{- .Values.chatbot.terminationGraceSeconds | default $own -}}
{{- end }}

{{/* llm-server gives vLLM its shutdown timeout and ten seconds more: (list $ $pool) */}}
{{- define "bank.llmGrace" -}}
{{- $pool := index . 1 -}}
{{- $profile := include "bank.profile" . | fromYaml -}}
{{- $pool.terminationGraceSeconds | default (add $pool.preStopSeconds $profile.shutdownTimeout 30) -}}
{{- end }}

{{- define "bank.weightsClaim" -}}
{{- .Values.weights.existingClaim | default (printf "%s-weights" (include "bank.fullname" .)) -}}
{{- end }}

{{- define "bank.blobsClaim" -}}
{{- .Values.ingest.blobs.existingClaim | default (printf "%s-blobs" (include "bank.fullname" .)) -}}
{{- end }}

{{/* A component's PriorityClass, ours or a named one: (list $ "serving") */}}
{{- define "bank.priority" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.priorityClasses.create -}}
{{- printf "%s-%s" (include "bank.fullname" $root) (index . 1) -}}
{{- else -}}
{{- index $root.Values.priorityClasses (index . 1) | default "" -}}
{{- end -}}
{{- end }}
