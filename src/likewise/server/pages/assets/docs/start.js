"use strict";
(async () => {
  const response = await fetch("openapi.json");
  if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
  const spec = await response.json();
  spec.servers = [{ url: new URL(".", location.href).href }]; // behind a proxy only the browser knows the address
  document.title = `${spec.info.title}: the API`;
  const validatorUrl = null; // the default would send a request to another host
  SwaggerUIBundle({ spec, dom_id: "#api", deepLinking: true, tryItOutEnabled: true, validatorUrl });
})().catch((error) => {
  document.getElementById("api").textContent = `openapi.json could not be read: ${error.message}`;
});
