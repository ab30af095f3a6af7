// The light and dark button; without it the page follows the system.
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const shown = () => root.dataset.theme || (system.matches ? "dark" : "light");
  const label = () => {
    button.textContent = shown() === "dark" ? "Light" : "Dark";
  };
  const stored = () => {
    try {
      return localStorage.getItem("pipeline-report-theme");
    } catch {
      return null;
    }
  };
  if (stored() === "dark" || stored() === "light") root.dataset.theme = stored();
  button.hidden = false;
  label();
  system.addEventListener("change", label);
  button.addEventListener("click", () => {
    root.dataset.theme = shown() === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("pipeline-report-theme", root.dataset.theme);
    } catch {
      /* a page from a file may have no storage */
    }
    label();
  });
})();
