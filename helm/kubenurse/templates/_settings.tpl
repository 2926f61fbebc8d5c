{{- /* The settings: variable and value; an empty value means unset. Templates get whole numbers as floating-point numbers. */ -}}
{{- define "kubenurse.settings" -}}
{{- $values := .Values -}}
KUBENURSE_INGRESS_URL: {{ include "kubenurse.ingressUrl" . | quote }}
KUBENURSE_SERVICE_URL: {{ include "kubenurse.serviceUrl" . | quote }}
KUBENURSE_INSECURE: {{ $values.insecure | quote }}
KUBENURSE_EXTRA_CA: {{ $values.extra_ca | quote }}
KUBENURSE_NAMESPACE: {{ include "kubenurse.namespace" . | quote }}
KUBENURSE_NEIGHBOUR_FILTER: {{ include "kubenurse.neighbourFilter" . | quote }}
KUBENURSE_NEIGHBOUR_LIMIT: {{ int64 $values.neighbour_limit | quote }}
KUBENURSE_ALLOW_UNSCHEDULABLE: {{ include "kubenurse.allowUnschedulable" . | default "false" | quote }}
KUBENURSE_READY_WHEN_CORDONED: {{ $values.ready_when_cordoned | quote }}
KUBENURSE_USE_TLS: {{ include "kubenurse.useTls" . | default "false" | quote }}
KUBENURSE_CERT_FILE: {{ include "kubenurse.certificate" (list . $values.cert_file "cert_file" "tls.crt") | quote }}
KUBENURSE_CERT_KEY: {{ include "kubenurse.certificate" (list . $values.cert_key "cert_key" "tls.key") | quote }}
KUBENURSE_NEIGHBOUR_TLS_NAME: {{ $values.neighbour_tls_name | quote }}
KUBENURSE_EXTRA_CHECKS: {{ $values.extra_checks | quote }}
KUBENURSE_CHECK_API_SERVER_DIRECT: {{ $values.check_api_server_direct | quote }}
KUBENURSE_CHECK_API_SERVER_DNS: {{ $values.check_api_server_dns | quote }}
KUBENURSE_CHECK_ME_INGRESS: {{ $values.check_me_ingress | quote }}
KUBENURSE_CHECK_ME_SERVICE: {{ $values.check_me_service | quote }}
KUBENURSE_CHECK_NEIGHBOURHOOD: {{ $values.check_neighbourhood | quote }}
KUBENURSE_CHECK_INTERVAL: {{ $values.check_interval | quote }}
KUBENURSE_CHECK_TIMEOUT: {{ $values.check_timeout | quote }}
KUBENURSE_CACHE_TTL: {{ $values.cache_ttl | quote }}
KUBENURSE_HISTORY: {{ $values.history | quote }}
KUBENURSE_NODE_WITNESS_PORT: {{ $values.node_witness_port | quote }}
KUBENURSE_REUSE_CONNECTIONS: {{ $values.reuse_connections | quote }}
KUBENURSE_HISTOGRAM_BUCKETS: {{ $values.histogram_buckets | quote }}
KUBENURSE_VICTORIAMETRICS_HISTOGRAM: {{ $values.victoriametrics_histogram | quote }}
KUBENURSE_EXPOSE_METADATA: {{ $values.expose_metadata | quote }}
KUBENURSE_TRACE_EVENTS: {{ $values.trace_events | quote }}
KUBENURSE_SHUTDOWN_DURATION: {{ $values.shutdown_duration | quote }}
KUBERNETES_SERVICE_DNS: {{ $values.kubernetes_service_dns | quote }}
KUBENURSE_LISTEN_ADDRESS: {{ $values.listen_address | quote }}
KUBENURSE_PORT: {{ int64 $values.port | quote }}
KUBENURSE_TLS_PORT: {{ int64 $values.tls_port | quote }}
KUBENURSE_LOG_LEVEL: {{ $values.log_level | quote }}
KUBENURSE_LOG_FORMAT: {{ $values.log_format | quote }}
HTTP_PROXY: {{ $values.http_proxy | quote }}
HTTPS_PROXY: {{ $values.https_proxy | quote }}
NO_PROXY: {{ $values.no_proxy | quote }}
{{- end -}}

{{- /* Without an Ingress of the chart the host can belong to another route. The default host is a placeholder. */ -}}
{{- define "kubenurse.ingressUrl" -}}
{{- $ingress := .Values.ingress -}}
{{- if and $ingress.url (or $ingress.enabled (ne $ingress.url "dummy-kubenurse.example.com")) -}}
https://{{ $ingress.url }}
{{- end -}}
{{- end -}}

{{- define "kubenurse.neighbourFilter" -}}
{{- $default := "app.kubernetes.io/name=kubenurse" -}}
{{- if eq (toString .Values.neighbour_filter) $default -}}
app.kubernetes.io/name={{ include "kubenurse.name" . }}
{{- else -}}
{{- .Values.neighbour_filter -}}
{{- end -}}
{{- end -}}

{{- /* Without the cluster's domain, which differs from cluster to cluster: the Pods' search domains complete it. */ -}}
{{- define "kubenurse.serviceUrl" -}}
{{- $service := printf "%s.%s" (include "kubenurse.fullname" .) (include "kubenurse.namespace" .) -}}
{{- .Values.service_url | default (printf "http://%s.svc:%d" $service (int64 .Values.service.port)) -}}
{{- end -}}

{{- /* Path of a file for HTTPS; called with the root, the value, the value's name and the key in the Secret. */ -}}
{{- define "kubenurse.certificate" -}}
{{- $root := index . 0 -}}
{{- $path := index . 1 -}}
{{- if and $root.Values.tls_secret (not $path) -}}
{{- $path = printf "/etc/kubenurse/tls/%s" (index . 3) -}}
{{- end -}}
{{- if and (include "kubenurse.useTls" $root) (not $path) -}}
{{- fail (printf "use_tls is true: set tls_secret, or %s to a file that daemonset.volumes mount" (index . 2)) -}}
{{- end -}}
{{- $path -}}
{{- end -}}

{{- /* The container's variables, except those in daemonset.extraEnvs. */ -}}
{{- define "kubenurse.env" -}}
{{- $given := list -}}
{{- range .Values.daemonset.extraEnvs -}}
{{- $given = append $given .name -}}
{{- end -}}
{{- $fields := dict "KUBENURSE_POD_NAME" "metadata.name" "KUBENURSE_NODE_NAME" "spec.nodeName" -}}
{{- if and .Values.daemonset.hostNetwork (not .Values.listen_address) -}}
{{- $fields = set $fields "KUBENURSE_LISTEN_ADDRESS" "status.podIP" -}}
{{- end -}}
{{- range $name, $path := $fields -}}
{{- if not (has $name $given) }}
- name: {{ $name }}
  valueFrom:
    fieldRef:
      apiVersion: v1
      fieldPath: {{ $path }}
{{- end -}}
{{- end -}}
{{- range $name, $value := include "kubenurse.settings" . | fromYaml -}}
{{- if and $value (not (has $name $given)) }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end -}}
{{- end -}}
{{- with .Values.daemonset.extraEnvs }}
{{ toYaml . }}
{{- end -}}
{{- end -}}

{{- /* shutdown_duration in whole seconds, plus ten. Templates can read a duration only by adding it to a date. */ -}}
{{- define "kubenurse.gracePeriod" -}}
{{- $epoch := toDate "2006-01-02" "2000-01-01" -}}
{{- $after := mustDateModify (default "5s" .Values.shutdown_duration) $epoch -}}
{{- add 10 (sub (unixEpoch $after) (unixEpoch $epoch)) -}}
{{- end -}}
