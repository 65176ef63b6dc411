"""The distribution that the `ndr` command and Beam's workers install.

Beam builds it from here when a pipeline names it by `--setup_file`, so that workers import a step's code by the
same path as the machine that started the run.
"""

from setuptools import find_packages, setup

setup(
    packages=find_packages(include=["components*", "ndr_client*", "pipeline*", "schemas*", "serving*"]),
    package_data={
        "": ["py.typed", "*.jinja", "*.css", "*.js"],
        "pipeline": ["configs/*.yaml"],
        "schemas": ["*/*.yaml", "*/*.pbtxt"],
    },
    include_package_data=False,
)
