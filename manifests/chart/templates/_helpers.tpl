{{/* The names are fixed: a cluster has room for one installation. */}}

{{- define "arpeggio.labels" -}}
app.kubernetes.io/name: arpeggio
app.kubernetes.io/part-of: arpeggio
app.kubernetes.io/version: {{ .Chart.AppVersion }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "arpeggio.podLabels" -}}
app.kubernetes.io/name: arpeggio
app.kubernetes.io/part-of: arpeggio
app.kubernetes.io/version: {{ .Chart.AppVersion }}
{{- end }}

{{/* What kustomize calls matchLabels. */}}
{{- define "arpeggio.selector" -}}
app.kubernetes.io/name: arpeggio
app.kubernetes.io/component: {{ . }}
{{- end }}

{{- define "arpeggio.image" -}}
{{ .image.repository }}:{{ .image.tag | default .version }}
{{- end }}

{{/* The forwarder keeps to 24 hours at most, and does not start with more. */}}
{{- define "arpeggio.keepConnections" -}}
{{- $seconds := 0 }}
{{- range regexFindAll "[0-9]+[hms]" (toString .) -1 }}
{{- $of := dict "h" 3600 "m" 60 "s" 1 }}
{{- $seconds = add $seconds (mul (atoi (regexFind "[0-9]+" .)) (get $of (regexFind "[hms]" .))) }}
{{- end }}
{{- if gt $seconds 86400 }}
{{- fail (printf "forwarder.keepConnections: %s is more than 24h" .) }}
{{- end }}
{{- . }}
{{- end }}

{{/* A chart that `condition` has switched off is not rendered: what sees the value here does not switch anything off. */}}
{{- define "arpeggio.checkEnabled" -}}
{{- if eq (toString .Values.enabled) "false" }}
{{- fail "enabled: false has no effect here. It switches Arpeggio off where another chart has this one among its dependencies, with `condition: arpeggio.enabled`; else use helm uninstall" }}
{{- end }}
{{- end }}

{{/* The definition that is in the cluster must be this chart's: Helm never changes what stands in crds/. */}}
{{- define "arpeggio.checkDefinition" -}}
{{- $name := "addresspools.arpeggio.dev" }}
{{- $there := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" $name }}
{{- $wanted := .Files.Get "files/definition" | trim }}
{{- if and .Values.checkDefinition $there }}
{{- $has := dig "metadata" "annotations" "arpeggio.dev/definition" "" $there }}
{{- if ne $has $wanted }}
{{- fail (printf "the definition %s in this cluster is another one than that of chart %s, and Helm does not change it. Apply it, then do this again: helm show crds CHART | kubectl apply --server-side --force-conflicts -f -" $name .Chart.Version) }}
{{- end }}
{{- end }}
{{- end }}
