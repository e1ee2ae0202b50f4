"""Imported by Python itself at the start of every process of the fault suite."""

import os

if "FAULTS_FOLDER" in os.environ:
    import faults_breaking
    import faults_injections
    import faults_loading
    import faults_mutants

    faults_loading.install(faults_injections.CHANGES, faults_breaking.chosen(faults_mutants.MUTANTS))
