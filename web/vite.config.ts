import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

// `npm run dev` serves the app alone; the API comes from a running Shopfloor, by default the demo's.
const api = process.env['SHOPFLOOR_URL'] ?? 'http://127.0.0.1:8080';

export default defineConfig({
  // Relative addresses, so that the console also works behind a proxy that gives it a path of its own.
  base: './',
  plugins: [svelte()],
  build: {
    outDir: '../src/shopfloor/console/app',
    emptyOutDir: true,
    target: 'es2022',
    // Nothing is put into the page itself: the console's content security policy allows no inline parts.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: { host: '127.0.0.1', proxy: { '/api': { target: api, ws: true } } },
});
