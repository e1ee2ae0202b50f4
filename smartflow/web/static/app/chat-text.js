/**
 * Shows what a model says as paragraphs, lists, headings and code. What it says is data: every character of it ends
 * in a text node, no element or attribute is taken from it but the address of an http(s) link.
 */
import { inline, LONGEST } from "./chat-inline.js";

const FENCE = /^\s{0,3}(`{3,}|~{3,})\s*([\w+#.-]*)/;
const HEADING = /^\s{0,3}(#{1,6})\s+(.*?)\s*#*$/;
const ITEM = /^(\s*)(?:([-*+•])|(\d{1,9})[.)、])\s+(.*)$/;
const QUOTE = /^\s{0,3}>\s?/;
const RULE = /^\s{0,3}([-*_])(\s*\1){2,}\s*$/;

/** Bring `target` to show `text`. Blocks that did not change keep their elements: a selection in them survives. */
export function showText(target, text) {
  const blocks = blocksOf(text);
  const known = target.shownBlocks ?? [];
  let same = 0;
  while (same < blocks.length && known[same] === blocks[same].raw) same += 1;
  while (target.childNodes.length > same) target.lastChild.remove();
  for (const block of blocks.slice(same)) target.append(elementOf(block));
  target.shownBlocks = blocks.map((block) => block.raw);
}

/** Split a text into {kind, raw, lines}. */
export function blocksOf(text) {
  const blocks = [];
  let lines = text.split("\n");
  while (lines.length) {
    if (!lines[0].trim()) {
      lines = lines.slice(1);
      continue;
    }
    const kind = kindOf(lines[0]);
    const count = lengthOf(kind, lines);
    const taken = lines.slice(0, count);
    blocks.push({ kind, lines: taken, raw: `${kind}\n${taken.join("\n")}` });
    lines = lines.slice(count);
  }
  return blocks;
}

function kindOf(line) {
  if (line.length > LONGEST) return "paragraph";
  if (FENCE.test(line)) return "code";
  if (HEADING.test(line)) return "heading";
  if (RULE.test(line)) return "rule";
  if (ITEM.test(line)) return "list";
  return QUOTE.test(line) ? "quote" : "paragraph";
}

function lengthOf(kind, lines) {
  if (kind === "heading" || kind === "rule") return 1;
  if (kind === "code") {
    const fence = FENCE.exec(lines[0])[1];
    const end = lines.findIndex((line, index) => index > 0 && line.trim().startsWith(fence));
    return end < 0 ? lines.length : end + 1;
  }
  const belongs = (line) => line.trim() && (kindOf(line) === kind || (kind === "list" && /^\s/.test(line)));
  const end = lines.findIndex((line, index) => index > 0 && !belongs(line));
  return end < 0 ? lines.length : end;
}

function elementOf({ kind, lines }) {
  if (kind === "code") return codeOf(lines);
  if (kind === "list") return listOf(lines);
  if (kind === "rule") return document.createElement("hr");
  if (kind === "heading") return headingOf(lines[0]);
  const element = document.createElement(kind === "quote" ? "blockquote" : "p");
  appendLines(element, kind === "quote" ? lines.map((line) => line.replace(QUOTE, "")) : lines);
  return element;
}

function headingOf(line) {
  const [, marks, words] = HEADING.exec(line);
  // below the headings of the page itself
  const element = document.createElement(marks.length === 1 ? "h4" : "h5");
  element.append(...inline(words));
  return element;
}

function codeOf(lines) {
  const [, fence, language] = FENCE.exec(lines[0]);
  const isClosed = lines.length > 1 && lines.at(-1).trim().startsWith(fence);
  const pre = document.createElement("pre");
  const code = document.createElement("code");
  code.textContent = lines.slice(1, isClosed ? -1 : undefined).join("\n");
  if (language) pre.dataset.language = language;
  // so that a keyboard can scroll what is too wide
  pre.tabIndex = 0;
  pre.append(code);
  return pre;
}

/** A list, with deeper items in lists of their own. */
function listOf(lines) {
  const root = document.createDocumentFragment();
  const open = [];
  for (const line of lines) {
    const item = ITEM.exec(line);
    if (!item) {
      open.at(-1)?.list.lastElementChild.append(document.createElement("br"), ...inline(line.trim()));
      continue;
    }
    const [, blank, , number, words] = item;
    while (open.length > 1 && open.at(-1).indent > blank.length) open.pop();
    if (!open.length || blank.length > open.at(-1).indent + 1) {
      const list = document.createElement(number ? "ol" : "ul");
      if (number && number !== "1") list.start = Number(number);
      (open.at(-1)?.list.lastElementChild ?? root).append(list);
      open.push({ indent: blank.length, list });
    }
    const element = document.createElement("li");
    element.append(...inline(words));
    open.at(-1).list.append(element);
  }
  return root.firstChild;
}

function appendLines(element, lines) {
  lines.forEach((line, index) => {
    if (index) element.append(document.createElement("br"));
    element.append(...inline(line));
  });
}
