# `job NAME --option value ...` runs the script NAME. Where its process died, and so wrote nothing, the script is called again with
# `--died CODE`, to write that down as the job's output: a plug-in that takes its process with it loses its own rows only.
# LAUNCHER are words between the interpreter and the script. Sourced by every rule's shell command.
job() {
  local name=$1 code=0 out='' before='' word
  shift
  "$PYTHON" ${LAUNCHER:-} "$SCRIPTS/$name.py" "$@" || code=$?
  for word; do
    case $before in --out | --report) out=$word ;; esac
    before=$word
  done
  if [ -e "$out" ] && [ "$code" = 0 ] || ! grep -q '"died?"' "$SCRIPTS/$name.py"; then
    return "$code"
  fi
  case $code in 2 | 70 | 129 | 130 | 143) return "$code" ;; esac # a mistake that is not the plug-in's, or somebody stopped it
  "$PYTHON" "$SCRIPTS/$name.py" "$@" --died "$code"
}
