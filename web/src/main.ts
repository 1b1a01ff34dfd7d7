/** Starts the console. */

import './style.css';
import { mount } from 'svelte';
import App from './App.svelte';
import { live } from './live/live.svelte';
import { plant } from './plant.svelte';

const target = document.getElementById('app');
if (target) mount(App, { target });
live.start();
plant.watch();
