"""Every sentence that a person may see has its Chinese, and the compiled catalog is in step with it.

To mend: `make messages`, translate what is empty in django.po, `make messages` again. Only that needs gettext.
"""

import ast
import re

import polib
import pytest
from django.utils.translation.template import templatize

from tests.architecture.project_tree import PACKAGES, ROOT, list_files, list_product_files, parse, read

FOLDER = ROOT / "smartflow" / "locale" / "zh_Hans" / "LC_MESSAGES"
CATALOG = polib.pofile(FOLDER / "django.po")
MARKS = {"_", "gettext", "gettext_lazy", "gettext_noop", "ngettext", "ngettext_lazy"}
TEMPLATE_MARK = re.compile(r"(?:\bn?gettext|\b_)\((u?'(?:[^'\\]|\\.)*'|u?\"(?:[^\"\\]|\\.)*\")")
FIELD = re.compile(r"%(?:\(\w+\))?[sd]")
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def marked_in_code(name):
    """What a Python file marks for translation, where it is written out."""
    calls = (node for node in ast.walk(parse(name)) if isinstance(node, ast.Call) and node.args)
    return {
        call.args[0].value
        for call in calls
        if getattr(call.func, "id", getattr(call.func, "attr", "")) in MARKS
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    }


def marked_in_template(name):
    """What a template marks for translation."""
    return {ast.literal_eval(literal) for literal in TEMPLATE_MARK.findall(templatize(read(name)))}


def every_marked_sentence():
    templates = [name for name in list_files() if name.endswith(".html") and name.split("/")[0] in PACKAGES]
    in_code = (marked_in_code(name) for name in list_product_files())
    in_templates = (marked_in_template(name) for name in templates)
    return set().union(*in_code, *in_templates)


def text_of(entry):
    return entry.msgstr_plural.get(0, "") if entry.msgid_plural else entry.msgstr


def test_every_marked_sentence_is_in_the_catalog():
    assert every_marked_sentence() - {entry.msgid for entry in CATALOG} == set()


def test_catalog_holds_nothing_that_is_no_longer_said():
    assert {entry.msgid for entry in CATALOG} - every_marked_sentence() == set()
    assert CATALOG.obsolete_entries() == []


def test_every_entry_is_translated_and_none_is_a_guess():
    assert [entry.msgid for entry in CATALOG if not CHINESE.search(text_of(entry))] == []
    assert [entry.msgid for entry in CATALOG if entry.fuzzy] == []


@pytest.mark.parametrize("entry", [entry for entry in CATALOG if FIELD.search(entry.msgid)], ids=lambda e: e.msgid)
def test_translation_keeps_the_fields(entry):
    assert sorted(FIELD.findall(text_of(entry))) == sorted(FIELD.findall(entry.msgid))


def test_sentences_end_as_sentences():
    """A full stop in one language is a full stop in the other."""
    ended = {".": "。", ":": "：", "…": "…"}
    told = {entry.msgid.replace("...", "…"): text_of(entry) for entry in CATALOG}
    wrong = [msgid for msgid, text in told.items() if ended.get(msgid[-1]) not in {None, text[-1]}]
    assert wrong == []


def test_compiled_catalog_is_in_step():
    compiled = {entry.msgid: text_of(entry) for entry in polib.mofile(FOLDER / "django.mo")}
    assert compiled == {entry.msgid: text_of(entry) for entry in CATALOG}
