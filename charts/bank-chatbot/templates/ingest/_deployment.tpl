{{/* The staff API, or the workers beside it, which nobody's requests reach: (list $ "ingest-worker" $tier) */}}
{{- define "bank.ingestDeployment" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $tier := index . 2 -}}
{{- $blobs := $root.Values.ingest.blobs -}}
{{- $bucket := hasPrefix "s3://" $blobs.url -}}
{{- $shared := or $bucket (eq $blobs.accessMode "ReadWriteMany") -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ printf "%s-%s" (include "bank.fullname" $root) $component }}
  namespace: {{ $root.Release.Namespace | toYaml }}
  labels:
    {{- include "bank.labels" (list $root $component) | nindent 4 }}
spec:
  {{- if eq $component "ingest" }}
  replicas: {{ $tier.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  progressDeadlineSeconds: 1200
  strategy:
    {{- if $shared }}
    type: RollingUpdate
    rollingUpdate:
      maxUnavailable: 0
      maxSurge: 1
    {{- else }}
    # One node holds the originals' volume: the old pod must let it go first.
    type: Recreate
    {{- end }}
  selector:
    matchLabels:
      {{- include "bank.selector" (list $root $component) | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "bank.podLabels" (list $root $component) | nindent 8 }}
      annotations:
        {{- if eq $component "ingest" }}
        checksum/bank: {{ include "bank.bankFiles" $root | sha256sum }}
        {{- end }}
        checksum/secrets: {{ printf "%s/%s" $root.Values.secrets.existing $root.Values.secrets.revision | sha256sum }}
        {{- with $root.Values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "bank.pod" (list $root $component $tier) | nindent 6 }}
      {{- with include "bank.priority" (list $root (eq $component "ingest" | ternary "serving" "background")) }}
      priorityClassName: {{ . | toYaml }}
      {{- end }}
      terminationGracePeriodSeconds: {{ add $tier.preStopSeconds 60 }}
      {{- include "bank.spread" (list $root $component $tier) | nindent 6 }}
      initContainers:
        {{- with include "bank.retrievalFiles" (list $root "ingest") | fromYamlArray }}
        {{- include "bank.awaitWeights" (list $root "ingest" (list) .) | nindent 8 }}
        {{- end }}
        {{- with include "bank.extra" (list $root "ingest" "initContainers") | trim }}{{ . | nindent 8 }}{{ end }}
      containers:
        - name: ingest
          image: {{ include "bank.image" (list $root "ingest") }}
          imagePullPolicy: {{ $root.Values.images.pullPolicy }}
          command: [ingest, serve]
          ports:
            - {name: http, containerPort: 8001, protocol: TCP}
          env:
            - {name: INGEST_HOST, value: 0.0.0.0}
            - {name: INGEST_PORT, value: "8001"}
            {{- with include "bank.serverTlsEnv" $root | trim }}{{ . | nindent 12 }}{{ end }}
            {{- include "bank.commonEnv" $root | nindent 12 }}
            {{- if eq $component "ingest" }}
            - {name: BANK_FILE, value: /etc/bank/bank.yaml}
            {{- with include "bank.signInEnv" (list $root "ingest") | trim }}{{ . | nindent 12 }}{{ end }}
            {{- end }}
            - {name: BLOB_URL, value: {{ $blobs.url | quote }}}
            {{- if $blobs.keysInSecret }}
            {{- include "bank.awsEnv" (list $root "") | nindent 12 }}
            {{- end }}
            - {name: PARSER__REQUIRE_WALLS, value: {{ $root.Values.ingest.requireWalls | quote }}}
            - {name: PIPELINE__AT_ONCE, value: {{ $tier.jobsAtOnce | quote }}}
            {{- include "bank.identityEnv" (list $root "ingest") | nindent 12 }}
            {{- include "bank.databaseEnv" (list $root "ingest") | trim | nindent 12 }}
            {{- include "bank.qdrantEnv" (list $root "write") | nindent 12 }}
            {{- include "bank.redisEnv" (list $root "ingest") | trim | nindent 12 }}
            {{- with include "bank.retrievalEnv" (list $root "embedder") | trim }}{{ . | nindent 12 }}{{ end }}
            {{- include "bank.settingsEnv" $root.Values.ingest.settings | nindent 12 }}
            {{- with include "bank.caEnv" $root | trim }}{{ . | nindent 12 }}{{ end }}
            {{- with include "bank.extra" (list $root "ingest" "env") | trim }}{{ . | nindent 12 }}{{ end }}
          {{- include "bank.webProbes" (list $root $tier) | nindent 10 }}
          lifecycle:
            preStop:
              sleep:
                seconds: {{ $tier.preStopSeconds }}
          resources:
            {{- toYaml $tier.resources | nindent 12 }}
          securityContext:
            {{- include "bank.container" $root | nindent 12 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            - {name: weights, mountPath: /models, readOnly: true}
            {{- if eq $component "ingest" }}
            - {name: bank, mountPath: /etc/bank, readOnly: true}
            {{- end }}
            {{- with include "bank.tlsMount" $root | trim }}{{ . | nindent 12 }}{{ end }}
            {{- if $root.Values.qdrant.tls.secret }}
            - {name: qdrant-tls, mountPath: /etc/qdrant-tls, readOnly: true}
            {{- end }}
            {{- with include "bank.placesMounts" (list $root (list "embedder")) | trim }}{{ . | nindent 12 }}{{ end }}
            {{- if not $bucket }}
            - {name: blobs, mountPath: /blobs}
            {{- end }}
            {{- with include "bank.caMount" $root | trim }}{{ . | nindent 12 }}{{ end }}
            {{- with include "bank.extra" (list $root "ingest" "volumeMounts") | trim }}{{ . | nindent 12 }}{{ end }}
      volumes:
        {{- include "bank.scratch" "4Gi" | nindent 8 }}
        {{- include "bank.weightsVolume" $root | nindent 8 }}
        {{- if eq $component "ingest" }}
        - name: bank
          configMap:
            name: {{ include "bank.fullname" $root }}-bank
        {{- end }}
        {{- with include "bank.tlsVolume" (list $root "ingest") | trim }}{{ . | nindent 8 }}{{ end }}
        {{- if $root.Values.qdrant.tls.secret }}
        - name: qdrant-tls
          secret:
            secretName: {{ $root.Values.qdrant.tls.secret | toYaml }}
        {{- end }}
        {{- with include "bank.placesVolumes" (list $root (list "embedder")) | trim }}{{ . | nindent 8 }}{{ end }}
        {{- if not $bucket }}
        - name: blobs
          persistentVolumeClaim:
            claimName: {{ include "bank.blobsClaim" $root | toYaml }}
        {{- end }}
        {{- with include "bank.caVolume" $root | trim }}{{ . | nindent 8 }}{{ end }}
        {{- with include "bank.extra" (list $root "ingest" "volumes") | trim }}{{ . | nindent 8 }}{{ end }}
{{- end }}
