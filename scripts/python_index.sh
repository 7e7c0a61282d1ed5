# shellcheck shell=bash
# Sourced by the scripts that install Python packages with uv. Needs .venv with uv in it.

# use_pip_configuration: pass pip's index, folders of wheels and certificates to uv, which does not read pip's options.
use_pip_configuration() {
  local options name value
  # The environment's options override those of files: they come last.
  options=$(.venv/bin/python -m pip config list 2>/dev/null | sed 's/^:env:/~/' | LC_ALL=C sort)
  for name in index-url=UV_DEFAULT_INDEX extra-index-url=UV_INDEX find-links=UV_FIND_LINKS cert=SSL_CERT_FILE; do
    value=$(sed -nE "s/^[a-z~]+\.${name%=*}='(.*)'\$/\1/p" <<< "$options" | tail -n 1)
    name=${name#*=}
    [ -z "$value" ] || [ -n "${!name:-}" ] || export "$name=$value"
  done
}

# install_torch PYTHON FILE.in...: install torch, and return whether it can be imported. The CPU build comes from a folder
# of wheels or from torch's own index. If neither can be reached, the Python index's build is installed, together with
# the CUDA libraries that it needs.
install_torch() {
  local python=$1 needs=() file
  shift
  for file; do needs+=(--requirement "$file"); done
  local install=(.venv/bin/uv pip install --quiet --python "$python")
  { [ -n "${UV_FIND_LINKS:-}" ] && "${install[@]}" --no-deps --no-index "${needs[@]}" && imports_torch "$python"; } 2>/dev/null && return
  # A dry run first: it fails within seconds if torch's index cannot be reached.
  { UV_HTTP_TIMEOUT=10 UV_HTTP_RETRIES=0 "${install[@]}" --no-deps --torch-backend cpu --dry-run "${needs[@]}" &&
    "${install[@]}" --no-deps --torch-backend cpu "${needs[@]}" && imports_torch "$python"; } 2>/dev/null && return
  echo "setup: no CPU build of torch can be reached; installing the Python index's build with its CUDA libraries (3.4 GB more)" >&2
  "${install[@]}" "${needs[@]}" && imports_torch "$python"
}

imports_torch() { "$1" -c 'import torch'; }
