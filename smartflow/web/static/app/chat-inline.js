/**
 * The marks inside a line: `code`, **bold**, *italic*, ~~struck~~ and links; anything else stays as it was written.
 */
const MARKS = [
  [/(`+)(.+?)\1(?!`)/, ([, , words]) => leaf("code", words.trim())],
  [/\[([^\]\n]+)\]\((https?:\/\/[^\s()]+)\)/, ([, words, address]) => link(words, address)],
  [/\*\*(?=\S)(.+?)(?<=\S)\*\*/, ([, words]) => nested("strong", words)],
  [/~~(?=\S)(.+?)(?<=\S)~~/, ([, words]) => nested("s", words)],
  [/(?<![*\w])\*(?=[^\s*])(.+?)(?<=[^\s*])\*(?![*\w])/, ([, words]) => nested("em", words)],
  [/https?:\/\/[^\s<>()"'`，。；：！？、）】]*[^\s<>()"'`，。；：！？、）】.,;:!?]/, ([address]) => link(address, address)],
];
/** Longer lines are shown as they are: looking for marks would take longer than a frame. */
export const LONGEST = 5000;

/** The nodes of one line. */
export function inline(line) {
  if (line.length > LONGEST) return [document.createTextNode(line)];
  const nodes = [];
  let rest = line;
  while (rest) {
    const [match, make] = firstOf(rest);
    if (!match) break;
    if (match.index) nodes.push(document.createTextNode(rest.slice(0, match.index)));
    nodes.push(make(match));
    rest = rest.slice(match.index + match[0].length);
  }
  if (rest) nodes.push(document.createTextNode(rest));
  return nodes;
}

function firstOf(text) {
  let first = [null, null];
  for (const [pattern, make] of MARKS) {
    const match = pattern.exec(text);
    if (match && (first[0] === null || match.index < first[0].index)) first = [match, make];
  }
  return first;
}

function leaf(name, words) {
  const element = document.createElement(name);
  element.textContent = words;
  return element;
}

function nested(name, words) {
  const element = document.createElement(name);
  element.append(...inline(words));
  return element;
}

function link(words, address) {
  const element = leaf("a", words);
  element.href = address;
  element.target = "_blank";
  element.rel = "noopener noreferrer nofollow";
  return element;
}
