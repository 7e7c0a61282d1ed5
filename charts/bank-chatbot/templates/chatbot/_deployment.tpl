{{/* One track of the chatbot, the stable one or the canary: (list $ "chatbot" $image) */}}
{{- define "bank.chatbotDeployment" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $chatbot := $root.Values.chatbot -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ printf "%s-%s" (include "bank.fullname" $root) $component }}
  namespace: {{ $root.Release.Namespace | toYaml }}
  labels:
    {{- include "bank.labels" (list $root $component) | nindent 4 }}
spec:
  {{- if eq $component "chatbot-canary" }}
  replicas: {{ $chatbot.canary.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  progressDeadlineSeconds: 1200
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxUnavailable: 0
      maxSurge: 1
  selector:
    matchLabels:
      {{- include "bank.selector" (list $root $component) | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "bank.podLabels" (list $root $component) | nindent 8 }}
      annotations:
        checksum/bank: {{ include "bank.bankFiles" $root | sha256sum }}
        checksum/models: {{ include "bank.modelsFile" $root | sha256sum }}
        {{- with $root.Values.llm.profiles }}
        checksum/profiles: {{ toYaml . | sha256sum }}
        {{- end }}
        checksum/secrets: {{ printf "%s/%s" $root.Values.secrets.existing $root.Values.secrets.revision | sha256sum }}
        {{- with $root.Values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "bank.pod" (list $root $component $chatbot) | nindent 6 }}
      {{- with include "bank.priority" (list $root "serving") }}
      priorityClassName: {{ . | toYaml }}
      {{- end }}
      terminationGracePeriodSeconds: {{ include "bank.chatbotGrace" $root }}
      {{- include "bank.spread" (list $root $component $chatbot) | nindent 6 }}
      initContainers:
        {{- $folders := include "bank.tokenizers" $root | fromYamlArray }}
        {{- $files := include "bank.retrievalFiles" (list $root "chatbot") | fromYamlArray }}
        {{- if or $folders $files }}
        {{- include "bank.awaitWeights" (list $root "chatbot" $folders $files) | nindent 8 }}
        {{- end }}
        {{- with include "bank.extra" (list $root "chatbot" "initContainers") | trim }}{{ . | nindent 8 }}{{ end }}
      containers:
        - name: chatbot
          image: {{ index . 2 }}
          imagePullPolicy: {{ $root.Values.images.pullPolicy }}
          command: [chatbot, serve]
          ports:
            - {name: http, containerPort: 8000, protocol: TCP}
            # No Service and no policy leads here: operators come by `kubectl port-forward`.
            - {name: admin, containerPort: 8010, protocol: TCP}
          env:
            - {name: HOST, value: 0.0.0.0}
            - {name: PORT, value: "8000"}
            - {name: ADMIN_PORT, value: "8010"}
            {{- with include "bank.serverTlsEnv" $root | trim }}{{ . | nindent 12 }}{{ end }}
            {{- include "bank.commonEnv" $root | nindent 12 }}
            - {name: MODELS_FILE, value: /etc/chatbot/models.yaml}
            - {name: BANK_FILE, value: /etc/bank/bank.yaml}
            - {name: TURN__LONGEST_ANSWER, value: {{ $chatbot.longestAnswerSeconds | quote }}}
            - {name: DRAIN_SECONDS, value: {{ $chatbot.longestAnswerSeconds | quote }}}
            - {name: ADMISSION__SLOTS, value: {{ $chatbot.slots | quote }}}
            - {name: ADMISSION__QUEUE, value: {{ $chatbot.queue | quote }}}
            - {name: ADMISSION__FIRST_TOKEN_TARGET, value: {{ $chatbot.firstTokenTargetSeconds | quote }}}
            # The most there may be of the stable track: while Redis is away each spends no more than its part, so together never
            # more. Without the canary's, which come and go in an incident: each step of theirs would restart every chatbot.
            - {name: LEDGER__REPLICAS, value: {{ eq $root.Values.scaling.engine "none" | ternary $chatbot.scaling.minReplicas $chatbot.scaling.maxReplicas | quote }}}
            {{- include "bank.identityEnv" (list $root "chatbot") | nindent 12 }}
            {{- with include "bank.signInEnv" (list $root "chatbot") | trim }}{{ . | nindent 12 }}{{ end }}
            {{- include "bank.secretEnv" (list $root "AUDIT_KEY") | nindent 12 }}
            {{- range $root.Values.llm.external }}
            {{- with .api_key_variable }}
            {{- include "bank.secretEnv" (list $root .) | nindent 12 }}
            {{- end }}
            {{- end }}
            {{- include "bank.databaseEnv" (list $root "chatbot") | trim | nindent 12 }}
            {{- include "bank.qdrantEnv" (list $root "read") | nindent 12 }}
            {{- include "bank.redisEnv" (list $root "chatbot") | trim | nindent 12 }}
            {{- range $place := list "embedder" "reranker" }}
            {{- with include "bank.retrievalEnv" (list $root $place) | trim }}{{ . | nindent 12 }}{{ end }}
            {{- end }}
            {{- if $chatbot.anchorKeysInSecret }}
            {{- include "bank.awsEnv" (list $root "ANCHORS_") | nindent 12 }}
            {{- end }}
            {{- include "bank.settingsEnv" $chatbot.settings | nindent 12 }}
            {{- with include "bank.caEnv" $root | trim }}{{ . | nindent 12 }}{{ end }}
            {{- with include "bank.extra" (list $root "chatbot" "env") | trim }}{{ . | nindent 12 }}{{ end }}
          {{- include "bank.webProbes" (list $root $chatbot) | nindent 10 }}
          lifecycle:
            preStop:
              # Until every balancer has seen that this pod is leaving.
              sleep:
                seconds: {{ $chatbot.preStopSeconds }}
          resources:
            {{- toYaml $chatbot.resources | nindent 12 }}
          securityContext:
            {{- include "bank.container" $root | nindent 12 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            - {name: weights, mountPath: /models, readOnly: true}
            {{- with include "bank.tlsMount" $root | trim }}{{ . | nindent 12 }}{{ end }}
            {{- if $root.Values.qdrant.tls.secret }}
            - {name: qdrant-tls, mountPath: /etc/qdrant-tls, readOnly: true}
            {{- end }}
            - {name: models, mountPath: /etc/chatbot, readOnly: true}
            - {name: bank, mountPath: /etc/bank, readOnly: true}
            {{- with include "bank.profilesMount" $root | trim }}{{ . | nindent 12 }}{{ end }}
            {{- with include "bank.placesMounts" (list $root (list "embedder" "reranker")) | trim }}{{ . | nindent 12 }}{{ end }}
            {{- with include "bank.caMount" $root | trim }}{{ . | nindent 12 }}{{ end }}
            {{- with include "bank.extra" (list $root "chatbot" "volumeMounts") | trim }}{{ . | nindent 12 }}{{ end }}
      volumes:
        {{- include "bank.scratch" "1Gi" | nindent 8 }}
        {{- include "bank.weightsVolume" $root | nindent 8 }}
        {{- with include "bank.tlsVolume" (list $root "chatbot") | trim }}{{ . | nindent 8 }}{{ end }}
        {{- if $root.Values.qdrant.tls.secret }}
        - name: qdrant-tls
          secret:
            secretName: {{ $root.Values.qdrant.tls.secret | toYaml }}
        {{- end }}
        {{- with include "bank.placesVolumes" (list $root (list "embedder" "reranker")) | trim }}{{ . | nindent 8 }}{{ end }}
        - name: models
          configMap:
            name: {{ include "bank.fullname" $root }}-models
        - name: bank
          configMap:
            name: {{ include "bank.fullname" $root }}-bank
        {{- with include "bank.profilesVolume" $root | trim }}{{ . | nindent 8 }}{{ end }}
        {{- with include "bank.caVolume" $root | trim }}{{ . | nindent 8 }}{{ end }}
        {{- with include "bank.extra" (list $root "chatbot" "volumes") | trim }}{{ . | nindent 8 }}{{ end }}
{{- end }}

{{/* Liveness depends on nothing; readiness knows draining; the first start loads the embedder: (list $ $tier) */}}
{{- define "bank.webProbes" -}}
{{- $root := index . 0 -}}
startupProbe:
  httpGet: {{ include "bank.httpGet" (list $root "/livez") }}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: {{ div (index . 1).startupSeconds 5 }}
livenessProbe:
  httpGet: {{ include "bank.httpGet" (list $root "/livez") }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {{ include "bank.httpGet" (list $root "/readyz") }}
  periodSeconds: 5
  # It waits up to two seconds for each part, and `ingest` for one after the other.
  timeoutSeconds: 9
  failureThreshold: 2
{{- end }}
