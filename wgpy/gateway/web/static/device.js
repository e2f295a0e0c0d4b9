// Adds a device whose key is made here, by the browser: only the public key is sent.
const form = document.getElementById("add-device");
const problem = document.getElementById("add-problem");

const base64 = (bytes) => btoa(String.fromCharCode(...bytes));

async function makeKey() {
  const pair = await crypto.subtle.generateKey({ name: "X25519" }, true, ["deriveBits"]);
  const secret = new Uint8Array(await crypto.subtle.exportKey("pkcs8", pair.privateKey)).slice(-32); // RFC 8410
  secret[0] &= 248; // as `wg genkey` writes it (RFC 7748, section 5)
  secret[31] = (secret[31] & 127) | 64;
  const publicKey = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
  return { secret: base64(secret), publicKey: base64(publicKey) };
}

async function add() {
  const key = await makeKey();
  const fields = new URLSearchParams(new FormData(form));
  fields.set("public_key", key.publicKey);
  const answer = await fetch(form.action, { method: "POST", body: fields, headers: { Accept: "application/json" } });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.detail);
  const text = said.file.replace(/^\[Interface\]\n/m, (line) => `${line}PrivateKey = ${key.secret}\n`);
  const link = document.getElementById("made-here-file");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/octet-stream" }));
  link.download = said.file_name;
  const made = document.getElementById("made-here");
  form.hidden = problem.hidden = true;
  made.hidden = false;
  made.focus();
}

form.addEventListener("submit", (event) => {
  if (form.elements.how.value !== "here") return;
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  add().catch((error) => {
    problem.textContent = error.message;
    problem.hidden = false;
  }).finally(() => { button.disabled = false; });
});

function showKeyField() {
  const field = document.getElementById("public_key");
  field.closest(".field").hidden = form.elements.how.value !== "mine";
  field.required = form.elements.how.value === "mine";
}
form.addEventListener("change", showKeyField);

makeKey().then(() => { // an older browser has no X25519, and a page without TLS no crypto.subtle
  document.getElementById("here-choice").hidden = false;
}, () => {});
showKeyField();
