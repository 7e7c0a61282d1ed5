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
  - name: {{ . }}
{{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ $root.Values.podSecurity.user }}
  runAsGroup: {{ $root.Values.podSecurity.group }}
  fsGroup: {{ $root.Values.podSecurity.group }}
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
    whenUnsatisfiable: {{ $root.Values.spread.zones }}
    labelSelector:
      matchLabels:
        {{- include "bank.selector" (list $root $component) | nindent 8 }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
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

{{/* Holds a pod back until its weights lie there: (list $ "image" (list folders)) */}}
{{- define "bank.awaitWeights" -}}
{{- $root := index . 0 -}}
- name: await-weights
  image: {{ include "bank.image" (list $root (index . 1)) }}
  imagePullPolicy: {{ $root.Values.images.pullPolicy }}
  command: [sh, -c]
  args:
    - |
      for folder in {{ join " " (index . 2) }}; do
        until [ -e "$folder/weights.json" ]; do echo "waiting for $folder"; sleep 5; done
      done
      {{- if has "/models/e5-small" (index . 2) }}
      until ls /models/e5-small/openvino/*/model.xml >/dev/null 2>&1; do echo "waiting for llm-server fetch e5-small to convert it"; sleep 5; done
      {{- end }}
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {cpu: 100m, memory: 64Mi}
  securityContext:
    {{- include "bank.container" $root | nindent 4 }}
  volumeMounts:
    - {name: weights, mountPath: /models, readOnly: true}
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
    claimName: {{ include "bank.weightsClaim" . }}
    readOnly: true
{{- end }}
