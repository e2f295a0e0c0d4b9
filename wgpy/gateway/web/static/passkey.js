// Forms that ask the browser's authenticator (https://www.w3.org/TR/webauthn-3/) before they are sent. A form has the kind
// of question in data-passkey ("create" or "get") and its options in data-options; the answer goes into its field `answer`.
"use strict";

function bytes(text) {
  const base64 = text.replaceAll("-", "+").replaceAll("_", "/");
  return Uint8Array.from(atob(base64), (each) => each.charCodeAt(0));
}

function text(buffer) {
  const binary = String.fromCharCode(...new Uint8Array(buffer));
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

// Browsers of before 2025 cannot read the options' JSON or write the answer's by themselves.
function read(options) {
  options.challenge = bytes(options.challenge);
  if (options.user) options.user.id = bytes(options.user.id);
  for (const each of [...(options.excludeCredentials ?? []), ...(options.allowCredentials ?? [])]) {
    each.id = bytes(each.id);
  }
  return options;
}

function written(credential) {
  const response = {};
  for (const name of ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"]) {
    if (credential.response[name]) response[name] = text(credential.response[name]);
  }
  return JSON.stringify({ id: credential.id, rawId: text(credential.rawId), type: credential.type, response });
}

async function ask(form) {
  const problem = form.querySelector("[role=alert]");
  problem.hidden = true;
  try {
    const publicKey = read(JSON.parse(form.dataset.options));
    const credential = await navigator.credentials[form.dataset.passkey]({ publicKey });
    form.elements.answer.value = written(credential);
    form.submit();
  } catch (error) {
    problem.textContent = error.name === "InvalidStateError"
      ? "This authenticator has a passkey for this site already."
      : `The browser could not do this (${error.message}). Try again.`;
    problem.hidden = false;
  }
}

for (const form of document.querySelectorAll("form[data-passkey]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask(form);
  });
  if (!window.PublicKeyCredential) {
    form.querySelector("button").disabled = true;
    const problem = form.querySelector("[role=alert]");
    problem.textContent = "This browser has no passkeys.";
    problem.hidden = false;
  }
}
