// Light or dark: what the system says, or what was chosen here. Runs before the page is drawn, so that it never flashes.
{
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = localStorage.getItem("theme");
  const current = () => chosen ?? (dark.matches ? "dark" : "light");
  const apply = () => {
    root.dataset.theme = current();
  };
  apply();
  dark.addEventListener("change", apply);
  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const tell = () => {
      button.setAttribute("aria-label", `Switch to the ${current() === "dark" ? "light" : "dark"} theme`);
    };
    tell();
    button.addEventListener("click", () => {
      chosen = current() === "dark" ? "light" : "dark";
      apply();
      tell();
      localStorage.setItem("theme", chosen);
    });
  });
}
