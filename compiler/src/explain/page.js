for (const replay of document.querySelectorAll(".replay")) {
  const kernels = [...replay.querySelectorAll("[data-ops]")];
  const pinned = new Set();
  const show = (hovered) => {
    const chosen = kernels.filter((kernel) => kernel === hovered || pinned.has(kernel));
    const ops = new Set(chosen.flatMap((kernel) => kernel.dataset.ops.split(" ")));
    replay.classList.toggle("shown", chosen.length > 0);
    for (const box of replay.querySelectorAll(".box")) {
      box.classList.toggle("lit", ops.has(box.id) || chosen.includes(box));
    }
  };
  for (const kernel of kernels) {
    kernel.addEventListener("pointerenter", () => show(kernel));
    kernel.addEventListener("pointerleave", () => show(null));
    kernel.addEventListener("focus", () => show(kernel));
    kernel.addEventListener("blur", () => show(null));
    kernel.addEventListener("click", () => {
      pinned.has(kernel) ? pinned.delete(kernel) : pinned.add(kernel);
      show(kernel);
    });
  }
}
