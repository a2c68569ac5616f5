"use strict";
(async () => {
  const answer = await fetch("openapi.json");
  if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
  const spec = await answer.json();
  spec.servers = [{ url: new URL(".", location.href).href }]; // behind a proxy only the browser knows the address
  document.title = `${spec.info.title}: the API`;
  const validatorUrl = null; // else the page would ask another host
  SwaggerUIBundle({ spec, dom_id: "#api", deepLinking: true, tryItOutEnabled: true, validatorUrl });
})().catch((error) => {
  document.getElementById("api").textContent = `openapi.json could not be read: ${error.message}`;
});
