{{- define "harp.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "harp.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := include "harp.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "harp.selector" -}}
app.kubernetes.io/name: {{ include "harp.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "harp.labels" -}}
{{ include "harp.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "harp.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "harp.fullname" .) }}
{{- else }}{{ .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "harp.secret" -}}
{{- .Values.sharedKey.existingSecret | default (include "harp.fullname" .) }}
{{- end }}

{{- /* not empty where pods are to find each other */}}
{{- define "harp.clustered" -}}
{{- if or .Values.cluster.url .Values.cluster.existingSecret }}true{{ end }}
{{- end }}

{{- define "harp.image" -}}
{{- $repository := required "set image.repository: HaRP's image, which you build and push yourself" .Values.image.repository }}
{{- if .Values.image.digest }}{{ $repository }}@{{ .Values.image.digest }}
{{- else }}{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- /* key=value,key=value of a map */}}
{{- define "harp.pairs" -}}
{{- $pairs := list }}
{{- range $key, $value := . }}{{ $pairs = append $pairs (printf "%s=%s" $key $value) }}{{ end }}
{{- join "," $pairs }}
{{- end }}

{{- /* rules of a Role for the features that are wanted; called with a list of: context, true for those of the cluster */}}
{{- define "harp.rules" -}}
{{- $context := index . 0 }}
{{- $cluster := index . 1 }}
{{- $verbs := dict }}
{{- range $feature := ($context.Files.Get "files/rights.json" | fromJson).features }}
{{- if and (eq $feature.cluster $cluster) (or (not $feature.optional) (get $context.Values.rbac.features $feature.name)) }}
{{- range $right := $feature.rights }}
{{- $key := printf "%s/%s" $right.group $right.resource }}
{{- $_ := set $verbs $key (concat (get $verbs $key | default list) $right.verbs | uniq) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $key, $verbs := $verbs }}
- apiGroups: [{{ (splitn "/" 2 $key)._0 | quote }}]
  resources: [{{ (splitn "/" 2 $key)._1 | quote }}]
  verbs: {{ $verbs | toJson }}
{{- end }}
{{- end }}
