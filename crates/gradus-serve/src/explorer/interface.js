// What the server is asked; every function throws an Error with the server's words.

async function ask(path, options) {
  const response = await fetch(path, options);
  if (response.status === 401) {
    await signIn();
    return ask(path, options);
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    const error = new Error(answer.error || `the server answered ${response.status}`);
    error.status = response.status;
    throw error;
  }
  return answer;
}

let asking = null;

// The token goes to the server once; the cookie it sends back serves pictures as well.
function signIn() {
  asking ??= new Promise((done) => {
    const dialog = document.getElementById("sign-in");
    dialog.showModal();
    dialog.addEventListener("close", async () => {
      const token = document.getElementById("token").value;
      await fetch("sign-in", { method: "POST", headers: { Authorization: `Bearer ${token}` } });
      asking = null;
      done();
    }, { once: true });
  });
  return asking;
}

const escaped = (id) => id.split("/").map(encodeURIComponent).join("/");

export const data = () => ask("explorer/data");
export const neighbours = (index, id, k) => ask(`neighbours/${escaped(id)}?index=${index}&k=${k}`);
export const searchImage = (file, k) =>
  ask(`search?k=${k}`, { method: "POST", headers: { "Content-Type": file.type || "application/octet-stream" }, body: file });
export const thumbnail = (index, id) => `thumbnails/${escaped(id)}?index=${index}`;
export const image = (index, path) => `images/${escaped(path)}?index=${index}`;
