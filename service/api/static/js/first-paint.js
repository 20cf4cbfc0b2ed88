// Set the chosen theme before anything is painted; all else of themes is in theme.js.
{
  const theme = localStorage.getItem("lora.theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
}
