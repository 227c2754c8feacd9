// What page/uPlot.iife.min.js defines; its own types are not shipped.
declare const uPlot: any;
