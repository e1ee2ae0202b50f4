"""Imported by Python itself at the start of every process of this suite; tests/faults/hooks is on the path too."""

import os

if "FAULTS_FOLDER" in os.environ:
    import chat_injections
    import chat_mutants
    import faults_breaking
    import faults_injections
    import faults_loading

    faults_loading.install(
        faults_breaking.chosen(chat_mutants.MUTANTS), faults_injections.CHANGES, chat_injections.CHANGES
    )
