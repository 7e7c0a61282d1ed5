{{/* What every pod says of itself, with "restricted" Pod Security: (list $ "component" $tier) */}}
{{- define "bank.pod" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $tier := index . 2 -}}
serviceAccountName: {{ printf "%s-%s" (include "bank.fullname" $root) (splitList "-" $component | first) }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.images.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . | toYaml }}
{{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ toJson $root.Values.podSecurity.user }}
  runAsGroup: {{ toJson $root.Values.podSecurity.group }}
  fsGroup: {{ toJson $root.Values.podSecurity.group }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with $tier.nodeSelector }}
nodeSelector:
{{- toYaml . | nindent 2 }}
{{- end }}
{{- with $tier.tolerations }}
tolerations:
{{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Zones first, then nodes: (list $ "component" $tier) */}}
{{- define "bank.spread" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $tier := index . 2 -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: {{ $tier.zoneSpread | default $root.Values.spread.zones }}
    # Nodes of a lost zone are tainted: they count no longer, or the zone's emptiness would keep pods from the others.
    nodeTaintsPolicy: Honor
    labelSelector:
      matchLabels:
        {{- include "bank.selector" (list $root $component) | nindent 8 }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    nodeTaintsPolicy: Honor
    labelSelector:
      matchLabels:
        {{- include "bank.selector" (list $root $component) | nindent 8 }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "bank.selector" (list $root $component) | nindent 14 }}
  {{- with $tier.nodeAffinity }}
  nodeAffinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "bank.container" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Holds a pod back until its weights lie there: (list $ "image" (list folders) (list files)) */}}
{{- define "bank.awaitWeights" -}}
{{- $root := index . 0 -}}
- name: await-weights
  image: {{ include "bank.image" (list $root (index . 1)) }}
  imagePullPolicy: {{ $root.Values.images.pullPolicy }}
  command: [sh, -c]
  args:
    - |
      {{- with index . 2 }}
      for folder in {{ join " " . }}; do
        until [ -e "$folder/weights.json" ]; do echo "waiting for $folder"; sleep 5; done
      done
      {{- end }}
      {{- range index . 3 }}
      until ls {{ . }} >/dev/null 2>&1; do echo "waiting for {{ . }} of llm-server fetch"; sleep 5; done
      {{- end }}
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {cpu: 100m, memory: 64Mi}
  securityContext:
    {{- include "bank.container" $root | nindent 4 }}
  volumeMounts:
    - {name: weights, mountPath: /models, readOnly: true}
{{- end }}

{{/* Certificates for the servers of retrieval: (list $ (list "embedder" "reranker")) */}}
{{- define "bank.placesMounts" -}}
{{- $root := index . 0 -}}
{{- range index . 1 }}
{{- if (index $root.Values .).tls.secret }}
- {name: {{ . }}-tls, mountPath: /etc/{{ . }}-tls, readOnly: true}
{{- end }}
{{- end }}
{{- end }}

{{- define "bank.placesVolumes" -}}
{{- $root := index . 0 -}}
{{- range $place := index . 1 }}
{{- with (index $root.Values $place).tls.secret }}
- name: {{ $place }}-tls
  secret:
    secretName: {{ . | toYaml }}
{{- end }}
{{- end }}
{{- end }}

{{- define "bank.profilesVolume" -}}
{{- if .Values.llm.profiles }}
- name: profiles
  configMap:
    name: {{ include "bank.fullname" . }}-profiles
{{- end }}
{{- end }}

{{- define "bank.profilesMount" -}}
{{- if .Values.llm.profiles }}
- {name: profiles, mountPath: /etc/profiles, readOnly: true}
{{- end }}
{{- end }}

{{/* The pod's own folders; nothing else can be written. (list "1Gi") is the size of /tmp. */}}
{{- define "bank.scratch" -}}
- name: tmp
  emptyDir:
    sizeLimit: {{ . }}
{{- end }}

{{- define "bank.weightsVolume" -}}
- name: weights
  persistentVolumeClaim:
    claimName: {{ include "bank.weightsClaim" . | toYaml }}
    readOnly: true
{{- end }}
