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
app.kubernetes.io/instance: {{ $root.Release.Name | toYaml }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* A pod's labels, and nothing that a new chart changes without a new image: it would restart every GPU server and
store. (list $ "component") */}}
{{- define "bank.podLabels" -}}
{{- $root := index . 0 -}}
{{ include "bank.selector" . }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* All labels of an object: (list $ "component") */}}
{{- define "bank.labels" -}}
{{- $root := index . 0 -}}
{{ include "bank.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{- /* Flux adds the commit or the digest that it has pulled to the version, after a +, which no label may have. */}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimAll "-_." }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* All labels of an object with those that a value adds to them, which go before the release's: a key that stands there
twice ends Flux. (list $ "component" $labels) */}}
{{- define "bank.labelsAnd" -}}
{{- mergeOverwrite (include "bank.labels" . | fromYaml) (index . 2) | toYaml -}}
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
{{- /* Of an entry that another values file has made, Helm leaves the null. */ -}}
{{- if $pool -}}
{{- $_ := set $pools $name (mergeOverwrite (deepCopy $.Values.llm.poolDefaults) $pool) -}}
{{- end -}}
{{- end -}}
{{- toYaml $pools -}}
{{- end }}

{{- define "bank.pool" -}}
{{- printf "%s-llm-%s" (include "bank.fullname" (index . 0)) (index . 1) -}}
{{- end }}

{{/* What the image knows of a pool's profile, or what stands in one of the operator's own: (list $ $pool) gives YAML. */}}
{{- define "bank.profile" -}}
{{- $root := index . 0 -}}
{{- $name := (index . 1).profile -}}
{{- with get $root.Values.llm.profiles $name -}}
{{- $fields := dict "task" (.task | default "generate") "device" .device "servedName" .served_name "shutdownTimeout" .engine.shutdown_timeout -}}
{{- $_ := set $fields "gpus" (eq .device "cuda" | ternary (.engine.tensor_parallel_size | default 1) 0) -}}
{{- if .hub }}{{ $_ := set $fields "hub" .hub }}{{ else }}{{ $_ := set $fields "weights" .weights }}{{ end -}}
{{- toYaml $fields -}}
{{- else -}}
{{- $profiles := $root.Files.Get "files/profiles.yaml" | fromYaml -}}
{{- if not (hasKey $profiles $name) -}}
{{- fail (printf "unknown-profile: there is no profile %s: it is one of those of the image (%s), or of llm.profiles" $name (keys $profiles | sortAlpha | join ", ")) -}}
{{- end -}}
{{- index $profiles $name | toYaml -}}
{{- end -}}
{{- end }}

{{/* How a profile is named to llm-server and the chatbot: by its name, or by the path of one of the operator's own:
(list $ "name") */}}
{{- define "bank.profileName" -}}
{{- $root := index . 0 -}}
{{- if get $root.Values.llm.profiles (index . 1) -}}
{{- printf "/etc/profiles/%s.yaml" (index . 1) -}}
{{- else -}}
{{- index . 1 -}}
{{- end -}}
{{- end }}

{{/* The pool that serves the embedder or the reranker, by its name; empty where none does: (list $ "embedder") */}}
{{- define "bank.retrievalPool" -}}
{{- $group := index . 1 -}}
{{- $found := "" -}}
{{- range $name, $pool := include "bank.pools" (index . 0) | fromYaml -}}
{{- if eq $pool.group $group }}{{ $found = $name }}{{ end -}}
{{- end -}}
{{- $found -}}
{{- end }}

{{/* Where its server is: the pool's, or the one that is named; empty where a folder has it: (list $ "embedder") */}}
{{- define "bank.retrievalUrl" -}}
{{- $root := index . 0 -}}
{{- $pool := include "bank.retrievalPool" . -}}
{{- if $pool -}}
{{- printf "%s://%s.%s.svc.%s:8000" (include "bank.http" $root) (include "bank.pool" (list $root $pool)) $root.Release.Namespace $root.Values.clusterDomain -}}
{{- else -}}
{{- (index $root.Values (index . 1)).url -}}
{{- end -}}
{{- end }}

{{/* The folder with the tokenizer of a served embedder; empty where none is named. */}}
{{- define "bank.embedderTokenizer" -}}
{{- $pool := include "bank.retrievalPool" (list . "embedder") -}}
{{- if $pool -}}
{{- include "bank.weightsFolder" (list . (get (include "bank.pools" . | fromYaml) $pool)) -}}
{{- else if .Values.embedder.tokenizer -}}
{{- printf "/models/%s" .Values.embedder.tokenizer -}}
{{- end -}}
{{- end }}

{{/* The folder of the embedder, a hub's by its commit; empty where a server has it. */}}
{{- define "bank.embedderFolder" -}}
{{- $place := .Values.embedder -}}
{{- if include "bank.retrievalUrl" (list . "embedder") -}}
{{- else if $place.revision -}}
{{- printf "/models/%s@%s" (replace "/" "--" $place.model) (trunc 12 $place.revision) -}}
{{- else if $place.folder -}}
{{- printf "/models/%s" $place.folder -}}
{{- else -}}
/models/e5-small
{{- end -}}
{{- end }}

{{/* Whether anybody needs e5-small: as the embedder, or its tokenizer, by which ingest counts where a server's is not known. */}}
{{- define "bank.needsE5" -}}
{{- $v := .Values -}}
{{- if or (eq (include "bank.embedderFolder" .) "/models/e5-small") (and $v.embedder.url (not (include "bank.embedderTokenizer" .)) $v.ingest.enabled) -}}
true
{{- end -}}
{{- end }}

{{/* The files on the weights' volume that mark the models of retrieval as whole, as YAML: (list $ "chatbot") */}}
{{- define "bank.retrievalFiles" -}}
{{- $root := index . 0 -}}
{{- $v := $root.Values -}}
{{- $files := list -}}
{{- $embedder := include "bank.embedderFolder" $root -}}
{{- if $embedder -}}
{{- $whole := $v.embedder.revision | empty | not | ternary "fetched.json" (eq $embedder "/models/e5-small" | ternary "weights.json" "modules.json") -}}
{{- $files = append $files (printf "%s/%s" $embedder $whole) -}}
{{- $files = append $files (printf "%s/openvino/*/model.xml" $embedder) -}}
{{- else if include "bank.embedderTokenizer" $root -}}
{{- $files = append $files (printf "%s/tokenizer.json" (include "bank.embedderTokenizer" $root)) -}}
{{- else if eq (index . 1) "ingest" -}}
{{- $files = append $files "/models/e5-small/tokenizer.json" -}}
{{- end -}}
{{- toYaml $files -}}
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

{{/* The bytes of a quantity of Kubernetes, which stores 1024Gi as 1Ti: sizes are compared as numbers, never as text. */}}
{{- define "bank.bytes" -}}
{{- $unit := regexFind "[kKMGTPE]i?$" . -}}
{{- $bytes := trimSuffix $unit . | float64 -}}
{{- range until (get (dict "k" 1 "K" 1 "M" 2 "G" 3 "T" 4 "P" 5 "E" 6) (trunc 1 $unit) | int) -}}
{{- $bytes = mulf $bytes (hasSuffix "i" $unit | ternary 1024 1000) -}}
{{- end -}}
{{- printf "%.0f" $bytes -}}
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
{{- /* They are the cluster's: the same release may be in a second namespace. */ -}}
{{- printf "%s-%s-%s" $root.Release.Namespace (include "bank.fullname" $root) (index . 1) -}}
{{- else -}}
{{- index $root.Values.priorityClasses (index . 1) | default "" -}}
{{- end -}}
{{- end }}
