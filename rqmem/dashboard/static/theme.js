// Before the page is drawn: the theme that this viewer chose. Without a choice, the system's.
(function () {
  "use strict";
  try {
    var chosen = localStorage.getItem("rqmem-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch (error) { /* storage is forbidden here: the system's theme, then */ }
})();
