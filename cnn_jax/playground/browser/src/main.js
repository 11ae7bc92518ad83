// Starts the page: reads the embedded data and mounts what there is to see.
import { mountServed } from "./served.js";

const server = document.querySelector('meta[name="cnn-jax-server"]');
if (server) {
  const container = document.getElementById("served");
  container.hidden = false;
  mountServed(container);
}
