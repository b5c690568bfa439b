# widentity-proof 1
# Runs in a pod and asks Entra as the pod's workload would: with the environment and the token that
# the webhook put there. Writes what came of it, and no token, to the termination log. The tokens
# stay in variables and in curl's request; they are never arguments of a command.
set -u
log="${WIDENTITY_REPORT:-/dev/termination-log}"
window="${WIDENTITY_WINDOW:-}"
limit="${WIDENTITY_LIMIT:-240}"
pause="${WIDENTITY_PAUSE:-5}"
tries=0

clean() { tr -d '"\\\r\t' | tr '\n' ' ' | cut -c1-600; }
fail() {
  text=$(printf '%s' "$2" | clean)
  printf '{"version":1,"proved":false,"stage":"%s","tries":%s,"text":"%s"%s}' \
    "$1" "$tries" "$text" "${3:-}" > "$log"
  exit 1
}
# The value of a member of the JSON on standard input, if it is a string, or a list that begins with
# one.
member() { tr -d '\n' | sed -n 's/.*"'"$1"'" *: *\[* *"\([^"]*\)".*/\1/p'; }
claims() {
  part=$(cut -d. -f2 | tr -d '\n' | tr '_-' '/+')
  case $((${#part} % 4)) in 2) part="$part==" ;; 3) part="$part=" ;; esac
  printf '%s' "$part" | base64 -d 2> /dev/null
}

for tool in base64 curl cut date sed sleep tr; do
  command -v "$tool" > /dev/null 2>&1 || fail image "the image has no $tool"
done
[ -n "${AZURE_FEDERATED_TOKEN_FILE:-}" ] || fail environment "AZURE_FEDERATED_TOKEN_FILE is not set"
[ -n "${AZURE_CLIENT_ID:-}" ] || fail environment "AZURE_CLIENT_ID is not set"
[ -n "${AZURE_TENANT_ID:-}" ] || fail environment "AZURE_TENANT_ID is not set"
[ -n "${AZURE_AUTHORITY_HOST:-}" ] || fail environment "AZURE_AUTHORITY_HOST is not set"
[ -r "$AZURE_FEDERATED_TOKEN_FILE" ] \
  || fail environment "$AZURE_FEDERATED_TOKEN_FILE cannot be read"
mine=$(claims < "$AZURE_FEDERATED_TOKEN_FILE")
iss=$(printf '%s' "$mine" | member iss)
sub=$(printf '%s' "$mine" | member sub)
aud=$(printf '%s' "$mine" | member aud)

began=$(date +%s)
refused=0
first=0
row=0
while :; do
  tries=$((tries + 1))
  answer=$(curl -sS --max-time 20 -w '\n%{http_code}' \
    --data-urlencode grant_type=client_credentials \
    --data-urlencode "client_id=$AZURE_CLIENT_ID" \
    --data-urlencode "scope=$WIDENTITY_SCOPE" \
    --data-urlencode client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer \
    --data-urlencode "client_assertion@$AZURE_FEDERATED_TOKEN_FILE" \
    "${AZURE_AUTHORITY_HOST%/}/$AZURE_TENANT_ID/oauth2/v2.0/token" 2>&1)
  status=$(printf '%s' "$answer" | sed -n '$p')
  now=$(date +%s)
  if [ "$status" = 200 ]; then
    row=$((row + 1))
    [ "$row" -gt 1 ] || first=$now
    over="$window"
    if [ -z "$over" ]; then
      # As long as it was refused, between 2 and 30 s.
      over=0
      if [ "$refused" -gt 0 ]; then
        over=$((first - refused))
        [ "$over" -ge 2 ] || over=2
        [ "$over" -le 30 ] || over=30
      fi
    fi
    if [ "$over" -eq 0 ]; then break; fi
    if [ "$row" -ge 3 ] && [ $((now - first)) -ge "$over" ]; then break; fi
    wait=$(((over + 1) / 2))
  else
    row=0
    text=$(printf '%s' "$answer" | member error_description)
    code=$(printf '%s' "$text" | sed -n 's/^AADSTS\([0-9]*\).*/\1/p')
    correlation=$(printf '%s' "$answer" | member correlation_id)
    text="${text%% Trace ID:*}"
    more=",\"status\":${status:-0},\"code\":${code:-0},\"correlation\":\"$correlation\""
    case "$status" in 000 | '') text=$(printf '%s' "$answer" | sed '$d') more= ;; esac
    case "$status:$code" in
      *:70021 | *:70025 | *:700211 | *:700212 | *:700213 | *:700016)
        [ "$refused" -gt 0 ] || refused=$now ;;
      *:90061 | *:50166 | *:501661 | 000:* | 429:* | 5??:*) ;;
      *) fail exchange "$text" "$more" ;;
    esac
    if [ $((now - began)) -ge "$limit" ]; then fail exchange "$text" "$more"; fi
    wait="$pause"
  fi
  if [ $((now - began)) -ge "$limit" ]; then
    fail steady "Entra answered, and the time was over before it did so steadily"
  fi
  sleep "$wait"
done

theirs=$(printf '%s' "$answer" | member access_token | claims)
answer=
oid=$(printf '%s' "$theirs" | member oid)
tid=$(printf '%s' "$theirs" | member tid)
printf '{"version":1,"proved":true,"tries":%s,"answers":%s,"iss":"%s","sub":"%s","aud":"%s","oid":"%s","tid":"%s"}' \
  "$tries" "$row" "$iss" "$sub" "$aud" "$oid" "$tid" > "$log"
