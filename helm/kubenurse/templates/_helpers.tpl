{{- define "kubenurse.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* At most 63 characters with -headless, the longest suffix. */ -}}
{{- define "kubenurse.fullname" -}}
{{- $name := include "kubenurse.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 54 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 54 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 54 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "kubenurse.namespace" -}}
{{- default .Release.Namespace .Values.namespace -}}
{{- end -}}

{{- define "kubenurse.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "kubenurse.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "kubenurse.selectorLabels" -}}
app.kubernetes.io/name: {{ include "kubenurse.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "kubenurse.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "kubenurse.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- /* Name, namespace and labels of an object; called with the root, a suffix of the name and further labels. */ -}}
{{- define "kubenurse.metadata" -}}
{{- $root := index . 0 -}}
name: {{ include "kubenurse.fullname" $root }}{{ index . 1 }}
namespace: {{ include "kubenurse.namespace" $root }}
labels:
  {{- merge (include "kubenurse.labels" $root | fromYaml) (index . 2) | toYaml | nindent 2 }}
{{- end -}}

{{- /* For a Prometheus that finds its targets by annotations, as in the chart of 1.15. They are left out when the chart makes
       a monitor: a Prometheus that uses both would scrape every agent twice. */ -}}
{{- define "kubenurse.podAnnotations" -}}
{{- $found := dict -}}
{{- if not (or .Values.podMonitor.enabled .Values.serviceMonitor.enabled) -}}
{{- $found = dict "scrape" "true" "scheme" "http" "path" "/metrics" "port" (int64 .Values.port | toString) -}}
{{- end -}}
{{- $annotations := dict -}}
{{- range $name, $value := $found -}}
{{- $annotations = set $annotations (printf "prometheus.io/%s" $name) $value -}}
{{- end -}}
{{- mergeOverwrite $annotations (default dict .Values.daemonset.podAnnotations) | toYaml -}}
{{- end -}}

{{- /* "true" or nothing: whether port-forward, which connects from inside the Pod, cannot reach the agents. */ -}}
{{- define "kubenurse.listensOutsideOnly" -}}
{{- $address := default (ternary "status.podIP" "" .Values.daemonset.hostNetwork) .Values.listen_address -}}
{{- if not (has $address (list "" "0.0.0.0" "::" "127.0.0.1" "::1")) -}}true{{- end -}}
{{- end -}}

{{- /* "true" or nothing, for a boolean or for a text that the agent reads as one. */ -}}
{{- define "kubenurse.isTrue" -}}
{{- if has (toString . | lower) (list "true" "1" "yes" "on") -}}true{{- end -}}
{{- end -}}

{{- /* "true" or nothing. Either value sets it. */ -}}
{{- define "kubenurse.allowUnschedulable" -}}
{{- include "kubenurse.isTrue" .Values.allow_unschedulable | default (include "kubenurse.isTrue" .Values.rbac.allow_unschedulable.enabled) -}}
{{- end -}}

{{- define "kubenurse.useTls" -}}
{{- include "kubenurse.isTrue" .Values.use_tls -}}
{{- end -}}

{{- /* The relabelings that PodMonitor and ServiceMonitor share. */ -}}
{{- define "kubenurse.endpointRelabelings" -}}
- sourceLabels: [__meta_kubernetes_pod_node_name]
  targetLabel: node
{{- with . }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "kubenurse.servicePorts" -}}
- name: {{ .Values.service.name | quote }}
  port: {{ int64 .Values.service.port }}
  targetPort: http
{{- if include "kubenurse.useTls" . }}
- name: https
  port: {{ int64 .Values.tls_port }}
  targetPort: https
{{- end }}
{{- end -}}

{{- define "kubenurse.policyPorts" -}}
ports:
  - protocol: TCP
    port: {{ int64 .Values.port }}
  {{- if include "kubenurse.useTls" . }}
  - protocol: TCP
    port: {{ int64 .Values.tls_port }}
  {{- end }}
{{- end -}}
