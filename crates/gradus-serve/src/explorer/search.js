// Searching with an image: chosen, or dropped anywhere on the page.

export function listen(search) {
  const file = document.getElementById("file");
  const drop = document.getElementById("drop");
  file.addEventListener("change", () => {
    if (file.files[0]) search(file.files[0]);
    file.value = "";
  });
  let depth = 0;
  const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  document.addEventListener("dragenter", (event) => {
    if (!carriesFiles(event)) return;
    depth += 1;
    drop.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (!carriesFiles(event)) return;
    depth = Math.max(0, depth - 1);
    drop.hidden = depth === 0;
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    drop.hidden = true;
    const [first] = event.dataTransfer?.files ?? [];
    if (first) search(first);
  });
}
