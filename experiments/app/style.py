"""Define the page's style sheet and keys; colours follow the theme, light or dark."""

CSS = """
.gradio-container { --quiet: color-mix(in srgb, var(--body-text-color) 72%, transparent);
  width: 100% !important; max-width: 60rem !important; margin: 0 auto !important; }
footer { display: none !important; }
button.md, button.lg { font-weight: 500; font-size: 1rem; }
.gradio-container .html-container { padding: 0 !important; }
#rate-status:not(:has(p)), #chat-status:not(:has(p)) { display: none; }
.message { padding: .5rem .75rem; border-radius: .5rem; margin: .25rem 0;
  border: 1px solid var(--border-color-primary); overflow-wrap: anywhere; }
.message.wrong { border-color: #b91c1c; background: #b91c1c1a; }
.task { display: grid; grid-template-columns: minmax(12rem, 1fr) 2fr; gap: 1.25rem; }
.task h3, .results h3, .chats h3 { font-size: .8rem; font-weight: 600; text-transform: uppercase;
  letter-spacing: .04em; color: var(--quiet); margin: .75rem 0 .35rem; }
.task ul, .results ul { padding-left: 1.2rem; margin: 0; list-style: disc; }
.said { list-style: none; padding: 0; margin: 0; display: flex; flex-direction: column;
  gap: .35rem; }
.said li { max-width: 88%; padding: .4rem .7rem; border-radius: .75rem; margin: 0;
  align-self: flex-start; background: var(--background-fill-secondary);
  border: 1px solid var(--border-color-primary); overflow-wrap: anywhere; white-space: pre-line; }
.said li.self { align-self: flex-end; background: var(--color-accent-soft); }
.said .who { position: absolute; left: -99rem; }
.context, .reply { overflow-wrap: anywhere; margin: 0; }
.reply { font-size: 1.15rem; padding: .7rem .9rem; border-radius: .75rem;
  border: 2px solid var(--color-accent); background: var(--color-accent-soft); }
.progress { height: .5rem; border-radius: .25rem; background: var(--border-color-primary);
  overflow: hidden; }
.progress div { height: 100%; background: var(--color-accent); }
.place { color: var(--quiet); font-size: .9rem; margin: .35rem 0; }
.wide { overflow-x: auto; }
.criteria p { margin: .4rem 0; }
.numbers { border-collapse: collapse; width: 100%; border: 0 !important; }
.numbers tr { border: 0; }
.numbers td, .numbers th { padding: .35rem .6rem; text-align: left;
  border: 0; border-bottom: 1px solid var(--border-color-primary); vertical-align: top; }
.numbers td, .numbers thead th:not(:first-child) { text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.numbers small { color: var(--quiet); }
kbd { border: 1px solid var(--border-color-primary); border-radius: .25rem; padding: 0 .35rem; }
summary { cursor: pointer; }
#scores { gap: .5rem; }
#scores[data-at="0"] #consistency, #scores[data-at="1"] #fluency,
#scores[data-at="2"] #coherence { box-shadow: inset 4px 0 var(--color-accent) !important; }
#scores .wrap { gap: .4rem; }
#scores .wrap label { flex: 1 1 9rem; }
.low { align-items: flex-end; }
.chats { display: grid; grid-template-columns: 1fr 1fr; gap: 1.25rem; }
.after { margin: .75rem 0; }
.download { display: inline-block; padding: .4rem .9rem; border-radius: .5rem;
  border: 1px solid var(--border-color-primary); }
@media (max-width: 40rem) {
  .task, .chats { grid-template-columns: 1fr; gap: .25rem; }
  .gradio-container { padding: .5rem !important; }
  #scores .wrap label { flex: 1 1 100%; }
}
"""

# Runs once when the page has loaded. The mark is an attribute of #scores; a key that
# saves waits for the next reply before others count, so that none is rated by accident.
KEYS = """
() => {
  const names = ["consistency", "fluency", "coherence"];
  let at = 0, reply = null, waiting = null, since = 0;
  const scores = () => document.querySelector("#scores");
  const inputs = (n) => [...document.querySelectorAll(`#${names[n]} input[type=radio]`)];
  const mark = (n) => { at = n; if (scores()) scores().dataset.at = at; };
  const look = () => {
    const shown = document.querySelector(".task[data-reply]");
    const now = shown && shown.dataset.reply;
    if (now !== reply) { reply = now; waiting = null; mark(0); }
    else if (scores() && scores().dataset.at === undefined) mark(at);
  };
  new MutationObserver(look).observe(document.body, {subtree: true, childList: true});
  look();
  document.addEventListener("keydown", (event) => {
    const target = event.target, shown = document.querySelector(".task[data-reply]");
    if (!shown || !shown.offsetParent || event.ctrlKey || event.metaKey || event.altKey) return;
    if (target.matches("textarea, input:not([type=radio]), [contenteditable]")) return;
    look();
    if (waiting === reply && waiting !== null && Date.now() - since < 3000) {
      event.preventDefault();
      return;
    }
    const press = (id) => {
      waiting = reply; since = Date.now();
      document.querySelector(id).click();
    };
    if (["1", "2", "3"].includes(event.key)) {
      inputs(at)[Number(event.key) - 1].click();
      mark(Math.min(at + 1, 2));
    } else if (event.key === "ArrowDown") mark(Math.min(at + 1, 2));
    else if (event.key === "ArrowUp") mark(Math.max(at - 1, 0));
    else if (event.key === "Enter" && !target.matches("button, a, summary, [role=tab]")) {
      const open = names.findIndex((_, n) => !inputs(n).some((input) => input.checked));
      if (open >= 0) mark(open); else press("#save");
    } else if (event.key === "Backspace") press("#back");
    else return;
    if (document.activeElement && document.activeElement.type === "radio")
      document.activeElement.blur();
    event.preventDefault();
    event.stopPropagation();
  }, true);
}
"""
