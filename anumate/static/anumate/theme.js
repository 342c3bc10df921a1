// Runs before the first paint, so that a chosen theme does not flash.
{
  const root = document.documentElement;
  const chosen = localStorage.getItem("anumate-theme");
  if (chosen) root.dataset.theme = chosen;

  addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme")?.addEventListener("click", () => {
      const dark = getComputedStyle(root).colorScheme === "dark";
      root.dataset.theme = dark ? "light" : "dark";
      localStorage.setItem("anumate-theme", root.dataset.theme);
    });
  });
}
