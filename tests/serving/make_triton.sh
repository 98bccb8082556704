#!/bin/sh
# A Triton server for the tests, in an environment of its own: tests/serving/make_triton.sh DIRECTORY
#
# The server is the one of nvidia-pytriton's wheel: tritonserver 2.51 (24.10) with the python backend, for Linux on x86-64.
# That version takes NumPy 1 alone (24.11 is the first that takes NumPy 2), and its backend needs the system's
# libpython3.11.so.1.0. OpenCV 5 asks for NumPy 2, and runs with 1.26.
set -eu

directory=$1
python=${PYTHON:-/usr/bin/python3.11}

"$python" -c 'import sys; assert sys.version_info[:2] == (3, 11), "Python 3.11 of the system is needed (python3.11-venv)"'
"$python" -m venv "$directory/environment"
pip="$directory/environment/bin/python -m pip install --quiet --disable-pip-version-check"
$pip --no-deps nvidia-pytriton==0.7.0 opencv-python-headless==5.0.0.93
$pip 'numpy==1.26.4' 'onnxruntime==1.32.0' 'pillow>=11.3' 'typer>=0.18' 'rich>=13'

server=$(echo "$directory"/environment/lib/python3.11/site-packages/pytriton/tritonserver)
mkdir -p "$directory/backends/python"
cp "$server"/backends/python/*.so "$server"/backends/python/*.py "$directory/backends/python"
cp "$server/python_backend_stubs/3.11/triton_python_backend_stub" "$directory/backends/python"
chmod +x "$server/bin/tritonserver" "$directory/backends/python/triton_python_backend_stub"
touch "$directory/ready"
